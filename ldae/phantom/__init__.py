"""A synthetic cohort with known truth: population, anatomy, scanner."""

"""Quality control of a cohort: images, table, duplicates, confounding."""

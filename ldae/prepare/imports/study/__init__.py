"""A manifest from the tables of a study, by a map of their columns."""

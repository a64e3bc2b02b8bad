"""Offline work on cohorts: phantoms, imports, preprocessing."""

"""Preprocessing of a cohort: raw heads to brains in template space."""

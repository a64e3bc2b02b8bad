"""Directions in code space that are found without labels."""

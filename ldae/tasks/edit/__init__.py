"""Edits of scans along directions in code space."""

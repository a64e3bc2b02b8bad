"""Metrics and statistics: arrays in, numbers out."""

"""Metrics, statistics, measured volumes and figures."""

"""Measurements with bounds; each is run as `python -m benchmarks.NAME`."""

"""Engines with one named fault each: real processes, run with `python -m tests.fakes NAME`."""

"""Engines as child processes on this machine."""

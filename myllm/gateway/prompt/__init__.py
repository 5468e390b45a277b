"""Prompts: fitted to a context, and compared with what a slot already holds."""

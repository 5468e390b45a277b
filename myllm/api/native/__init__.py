"""MyLLM's own dialect, `/api/*`, and `/health`."""

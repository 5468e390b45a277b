"""OpenAI's dialect, `/v1/*`."""

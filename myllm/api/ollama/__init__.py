"""Ollama's dialect, under `/ollama`."""

"""What is on disk and what can be had: registry, catalog, pull, GGUF header, memory."""

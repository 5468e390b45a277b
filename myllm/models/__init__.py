"""Models on disk and models to pull: registry, catalog, pull, GGUF header, memory estimate."""

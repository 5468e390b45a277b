"""Find or compile llama-server; its version, backends and devices."""

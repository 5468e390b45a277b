"""MyLLM: a private model server on supervised llama-server processes."""

__version__ = "0.1.0"

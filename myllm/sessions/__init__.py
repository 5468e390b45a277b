"""Stored conversations, and the KV states saved with them."""

"""Stored conversations, and the KV states saved beside them."""

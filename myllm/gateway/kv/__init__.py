"""The KV caches of the engines' slots, saved and restored with their sessions."""

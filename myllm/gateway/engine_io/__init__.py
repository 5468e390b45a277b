"""Requests to one engine and their answers: HTTP calls, event streams, tokens."""

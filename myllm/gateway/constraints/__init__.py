"""What a request may make an engine compute, and schemas rewritten into what engines enforce."""

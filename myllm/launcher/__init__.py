"""How an engine process is started somewhere: start, wait, stop."""

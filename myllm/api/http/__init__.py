"""What every request passes, whatever its dialect: connections, keys, bodies, streams."""

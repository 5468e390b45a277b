"""What every request passes through, in any dialect: connections, keys, bodies, streams."""

"""What `GET /metrics` exports: counts kept on the event loop, and read and rendered in a thread."""

"""Who hears of requests and engines: logs, metrics, usage records and traces."""

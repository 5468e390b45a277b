"""What happens on a server, for people who look at it: changes as they come, and the last hour."""

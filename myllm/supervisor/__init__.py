"""The set of running engines; one Instance is one process life."""

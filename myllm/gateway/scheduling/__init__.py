"""Which request gets a slot, which engines run and which leave: pure decisions, without I/O."""

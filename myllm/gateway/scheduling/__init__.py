"""Who gets a slot, which engines run and which leave: pure decisions, without IO."""

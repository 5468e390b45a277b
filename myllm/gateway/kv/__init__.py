"""What each slot remembers, saved and restored with its conversation."""

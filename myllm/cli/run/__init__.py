"""`myllm run`: one answer, or a conversation on a terminal."""

"""The one form of a conversation, whichever dialect it came in, and what makes it fit a model."""

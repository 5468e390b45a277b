"""Answers: from the queue to the last token, across an engine's death."""

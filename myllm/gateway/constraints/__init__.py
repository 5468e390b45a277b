"""Limits on the grammars, patterns and samplers that a request may give an engine."""

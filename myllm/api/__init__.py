"""HTTP only: one file per dialect, wire schemas, exceptions to envelopes, streaming answers."""

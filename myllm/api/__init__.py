"""HTTP only: one folder per dialect, and what they share."""

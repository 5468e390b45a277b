"""From exceptions to error bodies, one form per dialect, and their place in the OpenAPI document."""

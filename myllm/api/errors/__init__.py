"""From exceptions to error bodies, one form per dialect, and to the OpenAPI document."""

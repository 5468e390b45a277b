"""llama.cpp's own dialect, and questions to a model's engine."""

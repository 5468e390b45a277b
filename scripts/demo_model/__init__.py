"""Makes the demo model: its text, its conversations, its network and its GGUF file."""

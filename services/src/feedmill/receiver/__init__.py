"""The receiver: capture, nothing else, and never lose (DESIGN 4.1)."""

"""Orders, completes and normalises: raw stream to events stream, each frame's effect committed once."""

"""The demonstration: simulated exchanges, the real pipeline, and a comparison of what came in with what is stored."""

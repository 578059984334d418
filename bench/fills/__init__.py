"""Latency of a fill, from the socket to its commit."""

"""Feedmill: cryptocurrency exchange feeds from a manifest."""

__version__ = "0.1.0"

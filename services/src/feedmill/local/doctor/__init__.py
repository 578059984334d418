"""Checks of a machine for ``feedmill doctor``: each one line with a remedy."""

"""What can go wrong with an embedded server, told with its remedy."""

from __future__ import annotations


class EmbeddedError(RuntimeError):
    """An embedded server cannot be used; the message says what to do. It never holds a password."""


class DataDirInUse(EmbeddedError):
    """Another process holds the data folder."""

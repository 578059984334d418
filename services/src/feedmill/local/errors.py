"""Errors of local mode."""

from __future__ import annotations


class ManagerError(RuntimeError):
    """Local mode cannot run; the message says why and what to do. It never holds a password."""

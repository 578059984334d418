"""What makes a managed server impossible."""

from __future__ import annotations


class ManagedError(RuntimeError):
    """Starting again would not help; the message names the file or folder and the remedy, never a password."""

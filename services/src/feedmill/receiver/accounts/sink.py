"""What becomes of what is heard."""

from __future__ import annotations

from typing import Protocol

from feedmill.exchanges.account_base import Rejection


class Sink(Protocol):
    """Called in the order in which things happened. None of it may block."""

    def frame(self, account: str, receive_ns: int, payload: bytes) -> None:
        """A private frame of the account; one without a key, a token or a listen key in it."""

    def ready(self, account: str) -> None:
        """It is listened to from here on: what happened before must be asked for."""

    def lost(self, account: str, cause: str, why: Rejection | None) -> None:
        """It is not listened to from here on. ``cause`` shutdown: by our own wish. Else it is tried again."""

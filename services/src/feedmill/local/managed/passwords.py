"""The password of a managed server: its file, which may change at any time, and the one before it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from feedmill.local.embedded import files
from feedmill.local.managed.errors import ManagedError
from feedmill.shared.log import register_secret

GRACE = 300.0
"""Seconds for which the password before stays good: mounted Secrets reach pods one after the other."""


def read_password(path: Path) -> str:
    """The password in a file (its last line end is not part of it). Raises ManagedError."""
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError:
        raise ManagedError(f"--password-file {path}: there is no such file: mount the Secret that holds it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManagedError(f"--password-file {path}: cannot be read as text ({error.__class__.__name__})") from error
    if not text:
        raise ManagedError(f"--password-file {path}: is empty: write a password into the Secret")
    if text != text.strip() or not text.isprintable():
        raise ManagedError(
            f"--password-file {path}: the password has a space at an end, several lines, or control characters: "
            "choose another"
        )
    register_secret(text)
    return text


class Passwords:
    """``current`` and, for ``grace`` seconds after a change, ``previous``; kept in ``folder`` over restarts (0600)."""

    def __init__(
        self, source: Path, folder: Path, *, grace: float = GRACE, clock: Callable[[], float] = time.time
    ) -> None:
        self._source = source
        self._folder = folder
        self._grace = grace
        self._clock = clock
        self.current = ""
        self.previous: str | None = None
        self._until = 0.0

    def load(self) -> None:
        """At the start. Raises ManagedError when the file cannot be used."""
        self.previous, self._until = self._kept_previous()
        with contextlib.suppress(FileNotFoundError):
            self.current = (self._folder / "password").read_text().rstrip("\r\n")
        self._take(read_password(self._source))
        self.expire()

    def poll(self) -> bool:
        """Whether the file holds another password now, which is then ``current``.

        Raises ManagedError when the file cannot be used; the password stays as it was.
        """
        found = read_password(self._source)
        if found == self.current:
            return False
        self._take(found)
        return True

    def expire(self) -> bool:
        """Whether ``previous`` has just run out."""
        if self.previous is None or self._clock() < self._until:
            return False
        self.previous = None
        with contextlib.suppress(FileNotFoundError):
            (self._folder / "password.previous").unlink()
        return True

    def _take(self, found: str) -> None:
        if found == self.current:
            return
        if self.current:
            self.previous, self._until = self.current, self._clock() + self._grace
            kept = json.dumps({"password": self.previous, "until": self._until})
            files.write_private(self._folder / "password.previous", kept)
        self.current = found
        files.write_private(self._folder / "password", found + "\n")

    def _kept_previous(self) -> tuple[str | None, float]:
        try:
            kept = json.loads((self._folder / "password.previous").read_text())
            previous, until = str(kept["password"]), float(kept["until"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None, 0.0
        register_secret(previous)
        # A clock that was set back must not prolong it.
        return previous, min(until, self._clock() + self._grace)

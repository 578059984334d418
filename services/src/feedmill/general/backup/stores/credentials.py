"""What opens a bucket: two values of a Secret, which may become others while the process runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pydantic import SecretStr

ReadKey = Callable[[str], SecretStr]
"""Value of one key of the Secret that opens the destination, as it is now. Blocks; raises ConfigError."""


class Credentials:
    """An id and a secret, as they were read last."""

    def __init__(self, read: ReadKey, id_key: str, secret_key: str) -> None:
        self._read = read
        self._keys = id_key, secret_key
        self._values: tuple[str, str] | None = None
        self._lock = threading.Lock()
        self.version = 0
        """Counts how often they have become others."""

    def values(self) -> tuple[str, str]:
        """(id, secret): for the client library alone. Raises ConfigError."""
        with self._lock:
            if self._values is None:
                self._values = self._now()
            return self._values

    def renew(self, used: int) -> bool:
        """Read them again, unless they are others than those of version ``used`` already; whether they are others now.

        Several calls may be refused at once: what the first of them reads is news for all of them. Raises ConfigError.
        """
        with self._lock:
            if self.version == used:
                former, self._values = self._values, self._now()
                self.version += self._values != former
            return self.version != used

    def _now(self) -> tuple[str, str]:
        one, other = (self._read(key).get_secret_value().strip() for key in self._keys)
        return one, other

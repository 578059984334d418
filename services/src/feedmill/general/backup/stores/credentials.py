"""What opens a bucket: two values of a Secret, which may become others while the process runs."""

from __future__ import annotations

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

    def values(self) -> tuple[str, str]:
        """(id, secret): for the client library alone. Raises ConfigError."""
        if self._values is None:
            self._values = self._now()
        return self._values

    def renew(self) -> bool:
        """Read them again; whether they are others. Raises ConfigError."""
        former, self._values = self._values, self._now()
        return self._values != former

    def _now(self) -> tuple[str, str]:
        one, other = (self._read(key).get_secret_value().strip() for key in self._keys)
        return one, other

"""A database URL that never shows itself.

Apart from the driver: services without a database do not load that (2.5 MiB).
"""

from __future__ import annotations

from pydantic import SecretStr


class DatabaseUrl:
    """A database URL that never shows itself. Shared by all that connect: :meth:`become` changes it for all."""

    __slots__ = ("_value", "life")

    def __init__(self, value: str) -> None:
        self._value = SecretStr(value)
        self.life = 0
        """How often it became another: a connection made in an earlier life is due to be made anew."""

    def get(self) -> str:
        """The URL with its password: never log it."""
        return self._value.get_secret_value()

    def become(self, value: str) -> None:
        """Whoever connects from now on uses ``value``."""
        self._value = SecretStr(value)
        self.life += 1

    def __repr__(self) -> str:
        return "DatabaseUrl(**********)"

"""Redis URLs, read once and never printed with their password."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit


class RedisUrlError(ValueError):
    """The URL cannot be used; the message never repeats its password."""


@dataclass(slots=True)
class RedisUrl:
    """Where a Redis is, and how to log in.

    One object is shared by all that connect: :meth:`become` changes it for all of them.
    """

    host: str
    port: int
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    path: str | None = None
    """Unix socket, instead of host and port."""
    ca_file: str | None = None
    life: int = field(default=0, compare=False, repr=False)
    """How often it became another: a connection made in an earlier life is due to be made anew."""

    def become(self, other: RedisUrl) -> None:
        """Take the values of ``other``: whoever connects from now on uses them."""
        self.host, self.port, self.db = other.host, other.port, other.db
        self.username, self.password = other.username, other.password
        self.tls, self.path, self.ca_file = other.tls, other.path, other.ca_file
        self.life += 1

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Read ``redis://``, ``rediss://`` or ``unix://``; raises RedisUrlError with the remedy.

        No part of the URL is repeated in a message: what follows a raw / ? # in a password looks like a port, a path
        or a scheme.
        """
        form = "write redis://:password@host:port/db, with / ? # @ : in the password percent-encoded (%2F, %3F, ...)"
        try:
            parts = urlsplit(url.strip())
            port = parts.port or 6379
        except ValueError:
            raise RedisUrlError(f"the Redis URL cannot be read: {form}") from None
        query = parse_qs(parts.query)
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if parts.scheme == "unix":
            return cls("", 0, _number(query.get("db", ["0"])[0], form), username, password, path=parts.path)
        if parts.scheme not in ("redis", "rediss"):
            raise RedisUrlError("the Redis URL does not begin with redis://, rediss:// or unix://: write one of them")
        if not parts.hostname:
            raise RedisUrlError(f"the Redis URL names no host: {form}")
        db = _number(parts.path.strip("/") or "0", form)
        ca_file = query.get("ssl_ca_certs", [None])[0]
        return cls(parts.hostname, port, db, username, password, parts.scheme == "rediss", None, ca_file)

    def ssl_context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ca_file) if self.tls else None

    def __str__(self) -> str:
        """For people: no credentials."""
        if self.path:
            return f"unix://{self.path}"
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"


def _number(text: str, form: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise RedisUrlError(f"the Redis URL's database is not a number: {form}")
    return int(text)

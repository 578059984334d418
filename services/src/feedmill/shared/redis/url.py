"""Redis URLs, read once and never printed with their password."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit


class RedisUrlError(ValueError):
    """The URL cannot be used; the message never repeats its password."""


@dataclass(frozen=True, slots=True)
class RedisUrl:
    host: str
    port: int
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    path: str | None = None
    """Unix socket, instead of host and port."""
    ca_file: str | None = None

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Read ``redis://``, ``rediss://`` or ``unix://``; raises RedisUrlError with the remedy."""
        try:
            parts = urlsplit(url.strip())
            port = parts.port or 6379
        except ValueError as error:
            raise RedisUrlError(f"the Redis URL cannot be read ({error}): write redis://host:port/db") from None
        query = parse_qs(parts.query)
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if parts.scheme == "unix":
            db = int(query.get("db", ["0"])[0])
            return cls("", 0, db, username, password, path=parts.path)
        if parts.scheme not in ("redis", "rediss"):
            raise RedisUrlError(f"Redis URL scheme {parts.scheme!r} is not known: use redis://, rediss:// or unix://")
        if not parts.hostname:
            raise RedisUrlError("the Redis URL names no host: write redis://host:port/db")
        db_text = parts.path.strip("/") or "0"
        if not db_text.isdigit():
            raise RedisUrlError(f"Redis database {db_text!r} is not a number: write redis://host:port/0")
        ca_file = query.get("ssl_ca_certs", [None])[0]
        return cls(parts.hostname, port, int(db_text), username, password, parts.scheme == "rediss", None, ca_file)

    def ssl_context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ca_file) if self.tls else None

    def __str__(self) -> str:
        """For people: no credentials."""
        if self.path:
            return f"unix://{self.path}"
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"

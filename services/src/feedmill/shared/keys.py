"""Redis keys of one shard. Every key of a shard carries the same hash tag, so scripts work on a cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ShardRef:
    """One shard of one feed: the unit of ordering, of commits and of leases."""

    namespace: str
    feed: str
    shard: int

    def __str__(self) -> str:
        return f"{self.namespace}.{self.feed}.{self.shard}"

    @classmethod
    def parse(cls, text: str) -> ShardRef:
        """Read ``namespace.feed.shard``; raises ValueError when it is not of that form."""
        parts = text.split(".")
        if len(parts) != 3 or not all(parts) or not parts[2].isdigit():
            raise ValueError(f"{text!r} is not a shard: write namespace.feed.number")
        return cls(parts[0], parts[1], int(parts[2]))

    def key(self, what: str) -> str:
        return f"fm:{{{self}}}:{what}"

    @property
    def raw(self) -> str:
        """Stream of packed frames, one entry a batch (``frames.RawBatch`` in field ``b``)."""
        return self.key("raw")

    @property
    def sessions(self) -> str:
        """Hash session id -> number of its last appended batch."""
        return self.key("raw:sessions")

    @property
    def events(self) -> str:
        """Stream of commits: fields n, id, p, e (``events.EventBlock``), d (``events.DeltaBlock``), t."""
        return self.key("events")

    @property
    def applied(self) -> str:
        """Hash kept by the processor after its commit: n, id, stream (entry id). Only a hint for trimming."""
        return self.key("events:applied")

    @property
    def checkpoint(self) -> str:
        """Hash of the distributor's state: id, n, pos and one field per touched piece of state."""
        return self.key("checkpoint")

    @property
    def images(self) -> str:
        """Hash instrument -> book image with its raw position."""
        return self.key("images")

    @property
    def commands(self) -> str:
        """Stream of ``control.Command`` from the distributor to the receivers (field ``c``)."""
        return self.key("commands")

    @property
    def owner(self) -> str:
        """Of accounts: id of the account whose streams they are."""
        return self.key("owner")

    def lease(self, role: str) -> str:
        return self.key(f"lease:{role}")


def account_ref(account: str) -> ShardRef:
    """The streams of one account, ``namespace/name``: apart from those of feeds, whose names have no ``@``.

    Raises ValueError when it is not of that form.
    """
    namespace, slash, name = account.partition("/")
    if not namespace or not slash or not name or "/" in name:
        raise ValueError(f"{account!r} is not an account: write namespace/name")
    return ShardRef(namespace, f"@{name}", 0)


def pool_key(pipeline: tuple[str, str], what: str) -> str:
    """Of a pipeline's (namespace, name) pool of account receivers: ``members``, ``lease:SLOT``."""
    return f"fm:{{{'.'.join(pipeline)}}}:accounts:{what}"


def feeds_key(pipeline: tuple[str, ...]) -> str:
    """Hash of the feeds that were in a pipeline's manifests (``namespace.feed`` -> shards, and ns when last), kept by
    maintenance."""
    return f"fm:{{{'.'.join(pipeline)}}}:feeds"

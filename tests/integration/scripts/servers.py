"""A real server whose whole state can be put back to an earlier moment, as a restart with a cut log or a failover to a
lagging replica does."""

from __future__ import annotations

from typing import Any

import redis


class Server:
    """One shard's keys on a real server, through a plain client."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(url)
        # Trimming frees whole nodes: with small ones it shows in short streams.
        self.client.config_set("stream-node-max-entries", 2)
        self.begin_anew()

    def begin_anew(self) -> None:
        self.client.flushall()

    def wipe(self) -> None:
        """Delete everything. Ids of entries are times: those that follow are later ones."""
        seconds, micros = self.client.time()
        self.client.flushall()
        while self.client.time() < (seconds, micros + 2000):
            pass

    def picture(self) -> dict[bytes, bytes]:
        """Everything it has now."""
        keys = sorted(self.client.keys())
        return {key: self.client.dump(key) for key in keys}

    def roll_back(self, picture: dict[bytes, bytes]) -> None:
        """Have what it had then, and nothing else; scripts are forgotten as well."""
        transaction = self.client.pipeline(transaction=True)
        transaction.flushall()
        for key, value in picture.items():
            transaction.restore(key, 0, value)
        transaction.script_flush()
        transaction.execute()

    def close(self) -> None:
        self.client.close()

"""What a system under test must answer, and cryptofeed as one."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from bench.frames import SYMBOLS, native
from bench.observe import Redis
from bench.processes import ROOT, Child
from bench.stamps import trade_id
from bench.stores import Stores
from bench.tls import Certificate


@dataclass(frozen=True, slots=True)
class Bed:
    """What a run puts at a system's disposal."""

    folder: Path
    certificate: Certificate
    port: int
    """The exchange's."""
    stores: Stores

    @property
    def trust(self) -> dict[str, str]:
        ca = str(self.certificate.ca)
        return {"SSL_CERT_FILE": ca, "REQUESTS_CA_BUNDLE": ca}


class System(ABC):
    """One way from the exchange to a store: its processes and how to see what has arrived."""

    name: str
    observer: str
    """Kind of ``bench.observe``."""
    keys: tuple[str, ...] = ()
    """Streams to observe."""
    to_postgres = False
    held_back = False
    """The last service is started by :meth:`release` when all messages wait for it."""

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}

    @abstractmethod
    async def start(self, bed: Bed) -> None:
        """Start the processes; return when they are ready but for the exchange's acknowledgement."""

    @abstractmethod
    async def arrived(self, count: int) -> bool:
        """Whether message ``count - 1``, the last one, has arrived."""

    @abstractmethod
    async def counted(self) -> tuple[int, int]:
        """How many messages are in the store, and how many different ones (a full count, after the run)."""

    async def release(self, bed: Bed) -> None:
        """Start what was held back."""
        raise NotImplementedError

    async def progress(self) -> int:
        """How many messages the service that was held back has stored, as seen cheaply."""
        raise NotImplementedError

    async def stop(self) -> None:
        for child in reversed(self.children.values()):
            child.stop()

    def check(self) -> None:
        for child in self.children.values():
            child.check()


class Cryptofeed(System):
    """cryptofeed with one of its backends: one process that receives, normalises and writes."""

    def __init__(self, python: Path, backend: str) -> None:
        super().__init__()
        self.name = "cryptofeed"
        self._python = python
        self._backend = backend
        self.to_postgres = backend == "postgres"
        self.observer = "cryptofeed-rows" if self.to_postgres else "cryptofeed-redis"
        self.keys = tuple(f"trades-BINANCE-{symbol}" for symbol in SYMBOLS)
        self._redis: Redis | None = None
        self._postgres: asyncpg.Connection | None = None

    async def start(self, bed: Bed) -> None:
        stores = bed.stores
        if self.to_postgres:
            self._postgres = await asyncpg.connect(stores.database_url)
            await self._postgres.execute(
                "CREATE TABLE trades (id serial PRIMARY KEY, timestamp timestamp, receipt_timestamp timestamp,"
                " exchange varchar(32), symbol varchar(32), side varchar(8), amount numeric(64, 32),"
                " price numeric(64, 32), trade_id varchar(64), order_type varchar(32))"
            )  # the columns and types of its examples/postgres_tables.sql
        else:
            self._redis = Redis(stores.redis_url)
        settings = {
            "port": bed.port,
            "symbols": list(SYMBOLS),
            "backend": self._backend,
            "redis": stores.redis_parts(),
            "postgres": stores.postgres_parts(),
        }
        self.children["process"] = Child(
            "cryptofeed",
            # -P: the folder of the script, with a package named operator in it, is not on its path.
            [self._python, "-P", ROOT / "bench" / "cryptofeed_run.py"],
            log=bed.folder / "cryptofeed.log",
            env={**bed.trust, "PYTHONPATH": "", "BENCH_SETTINGS": json.dumps(settings)},
            cwd=bed.folder,
        )

    async def arrived(self, count: int) -> bool:
        if self._redis is not None:
            return self._length() >= count
        assert self._postgres is not None
        return (await self._postgres.fetchval("SELECT max(id) FROM trades") or 0) >= count

    async def counted(self) -> tuple[int, int]:
        if self._redis is not None:
            found: set[tuple[str, bytes]] = set()
            for key in self.keys:
                at = "-"
                while entries := self._redis.call("XRANGE", key, at, "+", "COUNT", 5000):
                    found.update((key, fields[fields.index(b"id") + 1]) for _, fields in entries)
                    at = "(" + entries[-1][0].decode()
            return self._length(), len(found)
        assert self._postgres is not None
        query = "SELECT count(*), count(DISTINCT (symbol, trade_id)) FROM trades"
        total, distinct = (await self._postgres.fetch(query))[0]
        return int(total), int(distinct)

    def _length(self) -> int:
        assert self._redis is not None
        return sum(self._redis.call("XLEN", key) for key in self.keys)

    async def stop(self) -> None:
        if self._postgres is not None:
            await self._postgres.close()
        self.children["process"].stop(timeout=3.0)


def last_trade(count: int) -> tuple[str, int]:
    """(symbol, trade id) of the last of ``count`` messages."""
    return SYMBOLS[(count - 1) % len(SYMBOLS)], trade_id(count - 1, len(SYMBOLS))


def last_trade_native(count: int) -> tuple[bytes, int]:
    symbol, number = last_trade(count)
    return native(symbol).encode(), number

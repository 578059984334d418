"""Order per instrument, as readers of the events streams see it: what is not marked late rises in number.

Follows the streams while faults go on, beside the processors: they trim what is stored, so it must keep up.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from feedmill.shared.events import EventBlock, Flag, decode_events
from feedmill.shared.keys import ShardRef

COUNT = 100
BLOCK = 200
"""Milliseconds."""
_NAMED = 5


class Judge:
    """One shard's commits, one after the other. Pure."""

    def __init__(self, shard: ShardRef) -> None:
        # Deribit's quotes have no number that rises.
        self._tickers = not shard.feed.startswith("deribit")
        self._name = str(shard)
        self._commit = 0
        self._highest: dict[tuple[str, str], int] = {}
        self.checked = 0
        """Trades and quotes that were not marked late."""
        self.unseen = 0
        """Commits that were trimmed before they could be read."""
        self.commits = 0
        self.wrong: list[str] = []

    def take(self, commit: int, block: EventBlock) -> None:
        if self._commit and commit <= self._commit:
            self.wrong.append(f"{self._name}: commit {commit} after {self._commit}")
        elif self._commit:
            self.unseen += commit - self._commit - 1
        self._commit = commit
        self.commits += 1
        for trade in block.trades:
            if not trade.flags & (Flag.LATE | Flag.BACKFILL):
                self._look("trade", trade.symbol, trade.id)
        for ticker in block.tickers if self._tickers else ():
            if not ticker.flags & Flag.LATE:
                self._look("quote", ticker.symbol, ticker.seq)

    def _look(self, kind: str, symbol: str, number: int) -> None:
        before = self._highest.get((kind, symbol), -1)
        if number <= before:
            self.wrong.append(f"{symbol}: {kind} {number} after {before}")
        else:
            self._highest[kind, symbol] = number
        self.checked += 1


class Order:
    """Reads from ``with`` to its end, in threads: a world beside this one that is compared holds the event loop.

    ``url``: of the Redis of the moment.
    """

    def __init__(self, url: Callable[[], str], shards: Sequence[ShardRef]) -> None:
        self._url = url
        self._judges = {shard: Judge(shard) for shard in shards}
        self._threads: list[threading.Thread] = []
        self._end = threading.Event()

    @property
    def checked(self) -> int:
        return sum(judge.checked for judge in self._judges.values())

    def breaches(self) -> list[str]:
        wrong = [text for judge in self._judges.values() for text in judge.wrong]
        found = [f"{len(wrong)} events out of order: {'; '.join(wrong[:_NAMED])}"] if wrong else []
        for shard, judge in self._judges.items():
            if not judge.checked or judge.unseen > judge.commits // 10:
                found.append(f"order not judged: {judge.unseen} commits of {shard} unseen, {judge.commits} seen")
        return found

    def _follow(self, shard: ShardRef, judge: Judge) -> None:
        last: bytes | str = "0-0"
        while not self._end.is_set():
            # Its own retries would wait for seconds, and what is stored meanwhile is trimmed.
            connection: Any = redis.Redis.from_url(self._url(), retry=Retry(NoBackoff(), 0))
            with contextlib.suppress(RedisError, OSError), contextlib.closing(connection):
                while not self._end.is_set():
                    found = connection.xread({shard.events: last}, count=COUNT, block=BLOCK)
                    for entry, fields in found[0][1] if found else ():
                        last = entry
                        judge.take(int(fields[b"n"]), decode_events(fields.get(b"e", b"")))
            self._end.wait(0.02)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._follow, args=item, daemon=True) for item in self._judges.items()]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(2.0)

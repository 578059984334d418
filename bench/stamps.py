"""Send times shared between processes: one mapped file, one int64 a message.

The message's number stands in its trade id, so whoever sees a trade can look up when it left the exchange. Milliseconds
in the payload would be too coarse. Layout: ``HEADER`` int64 fields, then one CLOCK_MONOTONIC time (ns) a message; that
clock is one for all processes of the machine. 0 = not sent yet.
"""

from __future__ import annotations

import mmap
from pathlib import Path

HEADER = 8
SENT = 0
"""Index of the header field that counts the messages sent so far."""
BASE_ID = 1_000_000_000
"""First trade id of every symbol: ten digits, so all frames of a symbol have the same length."""


class Stamps:
    """The table. ``times[k]`` is when message ``k`` was handed to the socket."""

    def __init__(self, path: Path, *, count: int | None = None) -> None:
        """Map ``path``; with ``count`` it is made anew for that many messages."""
        if count is not None:
            path.write_bytes(bytes(8 * (HEADER + count)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._all = memoryview(self._map).cast("q")
        self.times = self._all[HEADER:]
        self.path = path

    @property
    def sent(self) -> int:
        return self._all[SENT]

    @sent.setter
    def sent(self, value: int) -> None:
        self._all[SENT] = value

    def __len__(self) -> int:
        return len(self.times)

    def close(self) -> None:
        self.times.release()
        self._all.release()
        self._map.close()


def trade_id(number: int, symbols: int) -> int:
    """Trade id of message ``number``: dense per symbol, messages go round the symbols."""
    return BASE_ID + number // symbols


def number_of(trade_id: int, symbol: int, symbols: int) -> int:
    """Message number of a trade id of the ``symbol``-th symbol."""
    return (trade_id - BASE_ID) * symbols + symbol

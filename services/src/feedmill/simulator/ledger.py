"""The ledger: what a venue emitted, as tab-separated lines, one file a kind, in order of emission.

Lines are collected on the loop and written by one thread, so a slow disk never delays a message.

- ``trades``: symbol, id, price, size, side (1 buy, 2 sell: the taker's), exchange_ns, first_id, last_id
- ``tickers``: symbol, seq (0 where the venue has none: Deribit), bid, bid_size, ask, ask_size, exchange_ns (0 = none)
- ``books``: symbol, first_seq, seq, prev_seq, exchange_ns, bids, asks (JSON ``[["price","size"],..]``). A full image
  has first_seq = 0 and prev_seq = -1; size 0 removes a level
- ``candles``: closed ones: symbol, interval, open_ns, open, high, low, close, volume, quote_volume, trades, first_id,
  last_id (-1 = not given)
- ``faults``: t_ns, kind, symbol, channel, detail

Of accounts (every change of state is one line; numbers are plain and shortest; times are the venue's):

- ``orders``: account, symbol, order id, client id, side (BUY, SELL), type, time in force, price (0 = market), size,
  filled, quote filled, status (NEW, PARTIALLY_FILLED, FILLED, CANCELED, EXPIRED), execution (what happened), time_ns
- ``fills``: account, symbol, trade id, order id, side, price, size, fee, fee asset, maker (0, 1), realised, time_ns
- ``balances``: account, asset, free, locked, cause (START, NEW, TRADE, CANCELED, EXPIRED, TRANSFER), time_ns.
  Futures: all is free, and it is the wallet
- ``positions``: account, symbol, size (signed), entry price, realised since the start, time_ns
- ``transfers``: account, id, asset, amount (below 0 = withdrawn), time_ns
"""

from __future__ import annotations

import asyncio
import queue
import threading
from pathlib import Path
from typing import TextIO

ACCOUNT_KINDS = ("orders", "fills", "balances", "positions", "transfers")
KINDS = ("trades", "tickers", "books", "candles", "faults", *ACCOUNT_KINDS)
_MAX_PENDING = 200_000
"""Lines of one kind kept before they are handed over, whatever the timer says."""
_MAX_JOBS = 10_000
"""Blocks waiting for the disk; a disk that far behind is an error, not a reason to grow."""


def ledger_path(folder: Path, venue: str, kind: str) -> Path:
    """``<exchange>-<market>.<kind>.tsv``."""
    return folder / f"{venue.replace('/', '-')}.{kind}.tsv"


class LedgerError(RuntimeError):
    """The ledger could not be written; what was emitted since is not in it."""


class Ledger:
    """One venue's ledger. ``trades``, ``tickers`` ... are lists of whole lines (with newline) to append to."""

    def __init__(self, folder: Path | None, venue: str) -> None:
        self.folder = folder
        self.trades: list[str] = []
        self.tickers: list[str] = []
        self.books: list[str] = []
        self.candles: list[str] = []
        self.faults: list[str] = []
        self.orders: list[str] = []
        self.fills: list[str] = []
        self.balances: list[str] = []
        self.positions: list[str] = []
        self.transfers: list[str] = []
        self._lists: dict[str, list[str]] = {kind: getattr(self, kind) for kind in KINDS}
        self._files: dict[str, TextIO] = {}
        self._jobs: queue.Queue[tuple[str, str] | threading.Event | None] = queue.Queue(_MAX_JOBS)
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for kind in KINDS:
                self._files[kind] = ledger_path(folder, venue, kind).open("a", encoding="utf-8")
            self._thread = threading.Thread(target=self._write, name=f"ledger {venue}", daemon=True)
            self._thread.start()

    def fault(self, t_ns: int, kind: str, symbol: str, channel: str, detail: str) -> None:
        clean = detail.replace("\t", " ").replace("\n", " ").replace("\\", "\\\\")
        self.faults.append(f"{t_ns}\t{kind}\t{symbol}\t{channel}\t{clean}\n")

    def hand_over(self) -> None:
        """Give the collected lines to the writing thread. Raises LedgerError when an earlier write failed."""
        if self._error is not None:
            raise LedgerError(f"the ledger in {self.folder} cannot be written: {self._error}") from self._error
        for kind, lines in self._lists.items():
            if lines:
                if self._thread is not None:
                    self._put((kind, "".join(lines)))
                lines.clear()

    def _put(self, job: tuple[str, str] | threading.Event) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise LedgerError(f"the disk under the ledger in {self.folder} is {_MAX_JOBS} blocks behind") from None

    @property
    def crowded(self) -> bool:
        return any(len(lines) > _MAX_PENDING for lines in self._lists.values())

    async def flush(self) -> None:
        """Return when everything emitted so far is in the files."""
        self.hand_over()
        if self._thread is None:
            return
        done = threading.Event()
        self._put(done)
        await asyncio.to_thread(done.wait)
        if self._error is not None:
            self.hand_over()

    async def close(self) -> None:
        if self._thread is None:
            return
        try:
            await self.flush()
        finally:
            await asyncio.to_thread(self._jobs.put, None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _write(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if isinstance(job, threading.Event):
                    for file in self._files.values():
                        file.flush()
                else:
                    self._files[job[0]].write(job[1])
                    if self._jobs.empty():
                        # Who compares while messages flow must not find rows that are older than the files.
                        for file in self._files.values():
                            file.flush()
            except (OSError, ValueError) as error:
                self._error = error
            if isinstance(job, threading.Event):
                job.set()
        for file in self._files.values():
            file.close()

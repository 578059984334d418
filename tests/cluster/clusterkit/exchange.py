"""The simulated exchanges beside a real node, and what their ledger says of the database in it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterkit.waiting import until
from feedmill.simulator.report import Flow, Report
from feedmill.simulator.verify import verify

VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")


@dataclass(slots=True)
class Judgement:
    """Of one moment, summed over the venues. All counts are rows."""

    trades: int = 0
    """Stored."""
    tickers: int = 0
    lost_trades: int = 0
    lost_tickers: int = 0
    """Emitted between the first and the last one stored, neither stored nor in a gap row."""
    before_first: int = 0
    """Emitted before the first one stored: see the test of the start."""
    doubled: int = 0
    wrong: int = 0
    """Other content than emitted, gap rows of what is stored, wrong books. What is stored and not in the ledger is
    judged when the flow has ended: until then the ledger's files are a moment behind."""
    trades_in_gaps: int = 0
    tickers_in_gaps: int = 0
    behind: int = 0
    """Emitted after the last one stored: on its way."""
    dead_letters: int = 0
    flows: dict[str, int] = field(default_factory=dict)
    """Rows stored of each venue's trades and of its tickers, where it emits them."""
    notes: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.lost_trades + self.lost_tickers

    @property
    def came(self) -> int:
        """Rows stored, or told as missing."""
        return self.trades + self.tickers + self.trades_in_gaps + self.tickers_in_gaps

    def __sub__(self, other: Judgement) -> Judgement:
        """What came since ``other``."""
        names = [name for name in self.__slots__ if name not in ("flows", "notes", "behind")]
        found = Judgement(**{name: getattr(self, name) - getattr(other, name) for name in names})
        found.behind, found.flows, found.notes = self.behind, self.flows, self.notes
        return found

    def __str__(self) -> str:
        return (
            f"trades +{self.trades}, tickers +{self.tickers}, lost {self.lost_trades} + {self.lost_tickers}, "
            f"doubled {self.doubled}, wrong {self.wrong}, in gaps {self.trades_in_gaps} + {self.tickers_in_gaps}, "
            f"behind {self.behind}"
        )


def lost(flow: Flow) -> int:
    """Neither on its way nor before the beginning."""
    return flow.lost - flow.lost_after_last - flow.lost_before_first


def judge(report: Report) -> Judgement:
    found = Judgement()
    for venue in report.venues:
        found.trades += venue.trades.stored
        found.tickers += venue.tickers.stored
        found.trades_in_gaps += venue.trades.in_gaps
        found.tickers_in_gaps += venue.tickers.in_gaps
        found.lost_trades += lost(venue.trades)
        found.lost_tickers += lost(venue.tickers)
        for name, flow in (("trades", venue.trades), ("tickers", venue.tickers)):
            if flow.emitted:
                found.flows[f"{venue.venue} {name}"] = flow.stored
            found.before_first += flow.lost_before_first
            found.behind += flow.lost_after_last
            found.doubled += flow.doubled
            found.wrong += flow.wrong + flow.gaps_wrong
        found.wrong += venue.books.wrong
        found.dead_letters += venue.dead_letters
        found.notes += [f"{venue.venue}: {note}" for note in venue.notes]
    return found


class Exchange:
    """``feedmill simulate`` as a process of this machine, on the address that pods see."""

    def __init__(self, folder: Path, host: str, rate: float, more: Sequence[str] = ()) -> None:
        """``more``: further arguments of ``feedmill simulate``."""
        self.folder, self.host, self.rate, self.more = folder, host, rate, more
        self.ledger = folder / "ledger"
        self.endpoints: dict[str, dict[str, Any]] = {}
        """Venue -> ``stream``, ``rest``."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port_file = self.folder / "simulator.json"
        command = [sys.executable, "-m", "feedmill.cli.main", "simulate", "--host", self.host]
        command += [part for venue in VENUES for part in ("--exchange", venue)]
        command += ["--rate", f"{self.rate:g}", "--ledger", str(self.ledger), "--stats-every", "0"]
        # Pods come from many addresses here, and are started often: that is the test, not a storm.
        command += ["--limit", "connects=100000", "--port-file", str(port_file), *self.more]
        clean = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
        with (self.folder / "simulator.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean)

        def listens() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "simulator.log").read_text()
            return port_file.exists()

        until(listens, 120, what="the simulator")
        self.endpoints = json.loads(port_file.read_text())

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def ask(self, venue: str, path: str, method: str = "GET", body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.endpoints[venue]['rest']}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def emitted(self) -> int:
        """Messages so far."""
        return sum(
            channel["emitted"] for venue in VENUES for channel in self.ask(venue, "/_sim/stats")["channels"].values()
        )

    def until_emitted(self, more: int, timeout: float = 120.0) -> None:
        goal = self.emitted() + more
        until(lambda: self.emitted() >= goal, timeout, what=f"{more} more messages")

    def end(self) -> None:
        """No more messages; a last one on every topic comes first, so that a hole before it shows."""
        for venue in VENUES:
            self.ask(venue, "/_sim/stop?finish=1", "POST")

    def compare(self, database_url: str) -> Report:
        return asyncio.run(verify(self.ledger, database_url))

"""How local mode shows itself: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from feedmill.local.figures import FeedFigures
from feedmill.local.status import ManagerStatus, ServiceStatus

LINE_EVERY = 10.0
"""Seconds between two status lines of the plain display."""
STATE_WIDTH = 10
"""Characters of a feed's state in its table."""
WIDE = 100
"""Columns from which the median has its place too."""


class Display(Protocol):
    def start(self) -> None: ...
    def say(self, text: str) -> None:
        """A line to keep: a step, a notice."""

    def show(self, status: ManagerStatus, figures: Sequence[FeedFigures]) -> None:
        """The state now."""

    def stop(self) -> None: ...


def number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "?"
    text = f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:,.1f}"
    return text + unit


def duration_ms(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.1f} ms" if value < 10 else (f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s")


def size(value: int | None) -> str:
    return "?" if value is None else f"{value / (1 << 20):,.0f} MiB"


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _max(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def summary(status: ManagerStatus, figures: Sequence[FeedFigures]) -> str:
    """Everything in one line."""
    flowing = sum(item.flowing for item in figures)
    of_feeds = [
        f"{flowing} of {len(figures)} feed{'' if len(figures) == 1 else 's'} flowing",
        f"{number(_sum([item.frames_per_second for item in figures]))} frames/s in",
        f"{number(_sum([item.rows_per_second for item in figures]))} rows/s stored",
        f"behind {number(_max([item.lag_seconds for item in figures]), ' s')}",
        f"p99 {duration_ms(_max([item.p99_ms for item in figures]))}",
        f"open gaps {number(_sum([item.gaps_open for item in figures]))}",
        f"dead letters {number(_sum([item.dead_letters for item in figures]))}",
    ]
    parts = [
        *(of_feeds if figures else ()),
        f"services {status.totals.ready}/{status.totals.services} ready",
        size(status.totals.rss_bytes),
    ]
    waiting = [f"{item.feed.removeprefix('default/')}: {item.state}" for item in figures if not item.flowing]
    return "; ".join([", ".join(parts), *waiting])


class PlainDisplay:
    """Lines with the time of day. Fit for logs and pipes."""

    def __init__(
        self,
        stream: TextIO | None = None,
        every: float = LINE_EVERY,
        more: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """``more``: lines after the summary."""
        self._stream = stream or sys.stdout
        self._every = every
        self._more = more
        self._last = time.monotonic()

    def start(self) -> None:
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=self._stream, flush=True)

    def show(self, status: ManagerStatus, figures: Sequence[FeedFigures]) -> None:
        if status.phase != "running":
            self._last = time.monotonic()
        elif time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            for line in (summary(status, figures), *self._more()):
                self.say(line)

    def stop(self) -> None:
        self._stream.flush()


class LiveDisplay:
    """Tables that are drawn anew in place; notices scroll above them."""

    def __init__(
        self,
        console: Console | None = None,
        title: str = "feedmill up",
        hint: str = "",
        more: Callable[[], RenderableType | None] = lambda: None,
    ) -> None:
        """``more``: what stands between feeds and services."""
        self.console = console or Console(highlight=False)
        self._title = title
        self._hint = hint
        self._more = more
        self._notes: deque[str] = deque(maxlen=6)
        self._live: Live | None = None
        self._step = ""
        self._shown = False
        """Whether there are tables, which a line above them must not take away."""

    def start(self) -> None:
        self._live = Live(self._starting(), console=self.console, refresh_per_second=4, transient=True)
        self._live.start()

    def _starting(self) -> Text:
        return Text(f"{self._title}: {self._step or 'starting'} ...")

    def say(self, text: str) -> None:
        self._step = text
        line = f"{time.strftime('%H:%M:%S')} {text}"
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, style="dim")
            if not self._shown:
                self._live.update(self._starting())
        else:
            self.console.print(line, markup=False)

    def show(self, status: ManagerStatus, figures: Sequence[FeedFigures]) -> None:
        if self._live is not None:
            self._shown = True
            shown = render(self._title, self._hint, status, figures, self.console.width, more=self._more())
            self._live.update(shown)

    def stop(self) -> None:
        if self._live is not None:
            # It ends with one more look, in full height: what is higher than the terminal could not be taken away.
            self._live.update(Text(""), refresh=True)
            self._live.stop()
            self._live = None


def render(
    title: str,
    hint: str,
    status: ManagerStatus,
    figures: Sequence[FeedFigures],
    width: int = 120,
    *,
    more: RenderableType | None = None,
) -> Group:
    """The whole live view. What takes more than a word stands below its table, so that 80 columns do."""
    minutes, rest = divmod(int(status.uptime_seconds), 60)
    doing = status.step or ("all ready" if status.ready else status.phase)
    head = Text.assemble(
        (title, "bold"),
        f"  {minutes}:{rest:02d}  {doing}  ",
        (f"{status.totals.ready}/{status.totals.services} ready, {size(status.totals.rss_bytes)}", "dim"),
        (f"   {hint}" if hint else "", "dim"),
    )
    feeds = [Text(f"{_name(item)}: {item.state}", style="yellow") for item in figures if _word(item) != item.state]
    waits = [(item.name, _waits(item)) for item in status.services]
    waits += [(server.name, server.last_error or "") for server in status.servers]
    below = [Text(f"{name}: {why}", no_wrap=True, overflow="ellipsis") for name, why in waits if why]
    blank = Text("")
    # Accounts alone have no feeds.
    flows: list[RenderableType] = [blank, feeds_table(figures, width), *feeds] if figures or more is None else []
    between = [] if more is None else [blank, more]
    return Group(blank, head, *flows, *between, blank, services_table(status), *below)


def _name(item: FeedFigures) -> str:
    return item.feed.removeprefix("default/")


def _word(item: FeedFigures) -> str:
    return item.state if len(item.state) <= STATE_WIDTH else "waiting"


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))


def feeds_table(figures: Sequence[FeedFigures], width: int) -> Table:
    wide = width >= WIDE
    table = _table()
    table.add_column("feed", no_wrap=True, overflow="ellipsis")
    table.add_column("state", no_wrap=True, min_width=7)
    for column, least in (("in/s", 5), ("rows/s", 6), ("behind", 6), *([("p50", 7)] if wide else []), ("p99", 7)):
        table.add_column(column, justify="right", no_wrap=True, min_width=least)
    for column, least in (("books", 5), ("open gaps" if wide else "gaps", 4), ("dead", 4)):
        table.add_column(column, justify="right", no_wrap=True, min_width=least)
    for item in figures:
        books = "-" if item.books is None else f"{number(item.books_valid)}/{number(item.books)}"
        gaps = "?" if item.gaps is None else f"{item.gaps_open}/{item.gaps}"
        table.add_row(
            _name(item) if item.selected is None else f"{_name(item)} ({item.selected})",
            Text(_word(item), style="green" if item.flowing else "yellow"),
            number(item.frames_per_second),
            number(item.rows_per_second),
            number(item.lag_seconds, " s"),
            *([duration_ms(item.p50_ms)] if wide else []),
            duration_ms(item.p99_ms),
            books,
            Text(gaps, style="yellow" if item.gaps_open else ""),
            Text(number(item.dead_letters), style="red" if item.dead_letters else ""),
        )
    return table


def services_table(status: ManagerStatus) -> Table:
    table = _table()
    table.add_column("service", no_wrap=True, overflow="ellipsis")
    table.add_column("state", no_wrap=True, min_width=8)
    for column, least in (("memory", 7), ("cpu", 5), ("restarts", 8)):
        table.add_column(column, justify="right", no_wrap=True, min_width=least)
    for service in status.services:
        table.add_row(
            service.name,
            _state(service),
            size(service.rss_bytes),
            "?" if service.cpu_percent is None else f"{service.cpu_percent:.0f} %",
            str(service.restarts),
        )
    for server in status.servers:
        shown = Text(server.state, style="green" if server.state == "running" else "dim")
        table.add_row(server.name, shown, size(server.rss_bytes), "", str(server.restarts))
    return table


def _state(service: ServiceStatus) -> Text:
    if service.crash_loop:
        return Text("crash loop", style="red")
    if service.ready:
        return Text("ready", style="green")
    return Text(service.state, style="red" if service.state in ("backoff", "failed") else "yellow")


def _waits(service: ServiceStatus) -> str:
    if service.state in ("backoff", "failed"):
        return service.last_error or service.last_exit or ""
    return "; ".join(service.waiting_for.values())

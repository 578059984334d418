"""Numbers, times and tables for people."""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Sequence
from typing import Any

from feedmill_operator.plugin.errors import WRONG, PluginError

UNKNOWN = "?"
"""What nobody could say is never shown as 0."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str, option: str) -> int:
    """``90s``, ``5m``, ``1h``, ``2d`` or ``1h30m`` -> seconds; raises PluginError."""
    parts = re.findall(r"(\d+)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text or not any(int(n) for n, _ in parts):
        raise PluginError(f"{option} {text!r} is not a duration: write 30s, 10m, 1h or 2d", WRONG)
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def age(seconds: float | None) -> str:
    """As kubectl writes ages: 12s, 5m, 3h, 2d."""
    if seconds is None:
        return UNKNOWN
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 2 * 3600:
        return f"{whole // 60}m"
    if whole < 2 * 86400:
        return f"{whole // 3600}h"
    return f"{whole // 86400}d"


def span(whole: int) -> str:
    """A duration as one writes it: 90m, 1h, 2d."""
    unit, size = next((unit, size) for unit, size in reversed(_UNITS.items()) if whole % size == 0)
    return f"{whole // size}{unit}"


def seconds(value: float | None) -> str:
    """A lag: 0 s, 12 ms, 3.4 s, 2 min 05 s."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0 s"
    if value < 1:
        return f"{max(1, round(1000 * value))} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def milliseconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.1f} ms" if value < 100 else seconds(value / 1000)


def size(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.1f} {unit}" if unit == "GiB" else f"{value:.0f} {unit}"
        value /= 1024
    raise AssertionError


def number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f}"


def moment(stamp: str | None) -> float | None:
    """Seconds since the epoch of an API server's time."""
    if not stamp:
        return None
    try:
        return datetime.datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None


def since(stamp: str | None, now: float) -> float | None:
    at = moment(stamp)
    return None if at is None else now - at


def is_terminal() -> bool:
    return sys.stdout.isatty()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """A table on standard output; cells are text or (text, style). Not cut where it is not a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if is_terminal() else 10_000)
    made = Table(box=None, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        cells = ((cell, "") if isinstance(cell, str) else cell for cell in row)
        made.add_row(*(Text(text, style=style) for text, style in cells))
    with console.capture() as capture:
        console.print(made)
    for line in capture.get().splitlines():
        say(line.rstrip())


def say(line: str = "") -> None:
    print(line, flush=True)


def tell(line: str) -> None:
    """Beside the output: progress and notes."""
    print(line, file=sys.stderr, flush=True)

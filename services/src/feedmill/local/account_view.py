"""How accounts are shown: a table for the live view, a line for the plain one. Pure."""

from __future__ import annotations

import time

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from feedmill.local.account_figures import MANY, SHOWN, AccountFigures, PoolFigures

TROUBLES = 3
"""Accounts with a problem that are told in the plain line."""
_GOOD, _BAD = ("listening",), ("refused", "not run")


def ago(ns: int | None, now_ns: int | None = None) -> str:
    """How long ago, in one unit."""
    if ns is None:
        return "-"
    seconds = max(0, ((time.time_ns() if now_ns is None else now_ns) - ns) // 1_000_000_000)
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def many(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{MANY:,}+" if count > MANY else f"{count:,}"


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def summary(found: PoolFigures) -> str:
    """How many are listened to."""
    if not found.pool:
        remedy = "give the FeedPipeline spec.accounts"
        return f"{_number(found.enabled)} accounts in the database are not listened to: {remedy}"
    parts = [f"{_number(found.listening)} of {_number(found.enabled)} accounts listened to"]
    parts += [
        f"{number} {word}"
        for number, word in ((found.reconciling, "reconciling"), (found.refused, "refused"))
        if number
    ]
    return ", ".join(parts)


def lines(found: PoolFigures) -> list[str]:
    """For the plain display; none where there are no accounts."""
    if not found or (not found.pool and not found.enabled):
        return []
    troubles = [f"{_short(name)}: {why}" for name, why in list(found.problems.items())[:TROUBLES]]
    return ["; ".join([summary(found), *troubles])]


def panel(found: PoolFigures) -> RenderableType | None:
    """For the live view; None where there are no accounts."""
    if not found or (not found.pool and not found.enabled):
        return None
    below = [Text(f"{_short(name)}: {why}", style="yellow") for name, why in list(found.problems.items())[:TROUBLES]]
    if not found.pool or not found.shown or (found.accounts or 0) > len(found.shown):
        below.insert(0, Text(summary(found), style="dim" if found.pool else "yellow"))
    return Group(accounts_table(found), *below) if found.shown else Group(*below)


def accounts_table(found: PoolFigures) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("account", no_wrap=True, overflow="ellipsis")
    table.add_column("exchange", no_wrap=True, overflow="ellipsis")
    table.add_column("state", no_wrap=True, min_width=9)
    for column, least in (("open orders", 11), ("fills", 7), ("last fill", 9), ("key", 7)):
        table.add_column(column, justify="right", no_wrap=True, min_width=least)
    for item in found.shown:
        table.add_row(
            _short(item.account),
            item.venue,
            Text(item.state, style=_style(item)),
            _number(item.orders_open),
            many(item.fills),
            ago(item.last_fill_ns),
            Text(item.key, style="yellow" if item.key in ("warning", "refused") else "dim"),
        )
    return table


def states_table(found: PoolFigures) -> Table | None:
    """For ``feedmill status``: the accounts that are named, those with a problem first; None where there are none."""
    if not found.states:
        return None
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("account", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=9)
    for name in sorted(found.states, key=lambda name: (name not in found.problems, name))[:SHOWN]:
        table.add_row(_short(name), found.states[name])
    return table


def _short(account: str) -> str:
    return account.removeprefix("default/")


def _style(item: AccountFigures) -> str:
    if item.state in _GOOD:
        return "green"
    return "red" if item.state in _BAD else ("dim" if item.state == "disabled" else "yellow")

"""How the demonstration shows its accounts: a table with the latest changes of orders, or a line an account."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from feedmill.local.demo.account_figures import OPEN, AccountFigures, AccountsSeen, OrderChange
from feedmill.local.demo.accounts import Latencies
from feedmill.local.view import duration_ms
from feedmill.shared.events import Side

STYLES = {"partially_filled": "yellow", "filled": "green", "cancelled": "dim", "expired": "dim"}
WORDS = {"partially_filled": "partly filled"}


def amount(value: Decimal, places: int = 8) -> str:
    """Exact up to so many places, thousands apart, no zeros at the end."""
    text = f"{value.quantize(Decimal(1).scaleb(-places)):,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def held(account: AccountFigures, places: int = 8) -> str:
    found = (f"{amount(total, places)} {asset}" for asset, total in account.balances.items())
    return ", ".join(found) or "nothing yet"


def states(account: AccountFigures) -> str:
    """How many orders are in which state."""
    ended = sorted(account.orders.keys() - OPEN, key=lambda name: (name != "filled", name))
    return ", ".join([f"{account.open_orders:,} open", *(f"{account.orders[name]:,} {name}" for name in ended)])


def counts(account: AccountFigures) -> str:
    total = sum(account.orders.values())
    return f"{total:,} orders, {account.in_parts:,} in parts, {account.fills:,} fills"


def plain_lines(seen: AccountsSeen) -> list[str]:
    lines = []
    for account in seen.accounts:
        state = "" if account.flowing else " (asking for what was missed)" if account.gaps else " (connecting)"
        lines.append(f"{account.name}{state}: {counts(account)}; {states(account)}; holds {held(account)}")
    return lines


def panel(seen: AccountsSeen) -> Group | None:
    """For a terminal of 80 columns. None: there are no accounts yet."""
    if not seen.accounts:
        return None
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("account", no_wrap=True, overflow="ellipsis")
    for column, least in (("orders", 6), ("open", 4), ("parts", 5), ("filled", 6), ("cancelled", 9), ("fills", 6)):
        table.add_column(column, justify="right", no_wrap=True, min_width=least)
    table.add_column("gaps", justify="right", no_wrap=True, min_width=4)
    for account in seen.accounts:
        orders = account.orders
        gaps = Text(f"{account.gaps_open}/{account.gaps}", style="yellow" if account.gaps_open else "")
        ended = orders.get("cancelled", 0) + orders.get("expired", 0)
        numbers = (
            sum(orders.values()), account.open_orders, account.in_parts, orders.get("filled", 0), ended, account.fills,
        )  # fmt: skip
        table.add_row(account.name, *(f"{number:,}" for number in numbers), gaps)
    balances = [_line(f"{account.venue.partition('/')[0]} holds {held(account, 4)}") for account in seen.accounts]
    return Group(table, *balances, *([Text("")] if seen.latest else []), *map(change_line, seen.latest))


def change_line(change: OrderChange) -> Text:
    size = "?" if change.size is None else amount(change.size)
    price = change.type if change.price is None else f"at {amount(change.price)}"
    line = Text(f"{change.at} {change.exchange:<7} {change.symbol:<13} ", no_wrap=True, overflow="ellipsis")
    line.append(f"{'buy' if change.side == Side.BUY else 'sell':<4} {amount(change.filled)}/{size} {price}  ")
    line.append(WORDS.get(change.status, change.status), style=STYLES.get(change.status, ""))
    return line


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def final_lines(accounts: Sequence[AccountFigures], latencies: Latencies) -> list[str]:
    """Of the result: what each account did and holds, and how long its events took from the socket to the commit."""
    lines = []
    for account in accounts:
        p50, p99 = latencies.get(account.venue, (None, None))
        lines.append(f"{account.name}: {counts(account)}; {account.gaps - account.gaps_open} gaps closed")
        lines.append(f"  {states(account)}")
        lines.append(f"  holds {held(account)}")
        lines.append(f"  from the socket to the commit: p50 {duration_ms(p50)}, p99 {duration_ms(p99)}")
    return lines

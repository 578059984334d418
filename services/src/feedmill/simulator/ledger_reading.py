"""Reading a ledger: which venues it holds, its rows, and Deribit's ticker rows with the hash that stands for an id."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

from feedmill.simulator.ledger import KINDS, ledger_path


def venues_in(folder: Path) -> list[str]:
    """Venues with a ledger in ``folder``. Raises FileNotFoundError when there is none."""
    found = []
    for path in sorted(folder.glob(f"*.{KINDS[0]}.tsv")):
        exchange, _, market = path.name.removesuffix(f".{KINDS[0]}.tsv").partition("-")
        found.append(f"{exchange}/{market}")
    if not found:
        raise FileNotFoundError(f"no ledger in {folder}: give the folder that feedmill simulate --ledger wrote")
    return found


def lines(folder: Path, venue: str, kind: str) -> Iterator[str]:
    """Whole lines with their newline; a line that is still being written is left out."""
    path = ledger_path(folder, venue, kind)
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            if line.endswith("\n"):
                yield line


def rows(folder: Path, venue: str, kind: str) -> Iterator[list[str]]:
    for line in lines(folder, venue, kind):
        yield line[:-1].split("\t")


def plain(text: str) -> str:
    """A number without exponent; text that is no number stays."""
    if "e" not in text and "E" not in text:
        return text
    try:
        return format(Decimal(text), "f")
    except InvalidOperation:
        return text


def empty_side(price: str, size: str) -> tuple[str, str]:
    """A side without price, or with price 0, is empty."""
    return ("", "") if not price.strip("-0.") else (price, size)


def ticker_lines(folder: Path, venue: str) -> Iterator[str]:
    """Ticker rows as the table should hold them: sequence filled in, empty sides empty."""
    if not venue.startswith("deribit"):
        yield from lines(folder, venue, "tickers")
        return
    # The one thing taken from the adapter: what the hash is made of is our own convention, not the venue's protocol.
    from feedmill.exchanges.deribit.numbers import ticker_seq

    for symbol, _, bid, bid_size, ask, ask_size, at in rows(folder, venue, "tickers"):
        bid, bid_size = empty_side(plain(bid), plain(bid_size))
        ask, ask_size = empty_side(plain(ask), plain(ask_size))
        seq = ticker_seq(symbol, int(at) // 1_000_000, bid, bid_size, ask, ask_size)
        yield f"{symbol}\t{seq}\t{bid}\t{bid_size}\t{ask}\t{ask_size}\t{at}\n"

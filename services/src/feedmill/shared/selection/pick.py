"""Which instruments of a venue's list match a selection at a time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import msgspec

from feedmill.exchanges.base import Listed, Listing
from feedmill.resources.feed import Select
from feedmill.resources.types import InstrumentType
from feedmill.shared.clock import SECOND

OPTIONS_EVERY = 60.0
"""Seconds between two looks at the list where options may be among what is selected."""
ELSE_EVERY = 300.0


@dataclass(frozen=True, slots=True)
class Criteria:
    """What ``spec.instruments.select`` says. Empty = any."""

    types: frozenset[str]
    base: frozenset[str]
    quote: frozenset[str]
    expires_within_ns: int | None
    most: int
    every: float
    """Seconds between two looks at the venue's list."""

    @classmethod
    def of(cls, select: Select) -> Criteria:
        types = frozenset(kind.value for kind in select.types or ())
        within = select.expires_within
        every = OPTIONS_EVERY if not types or InstrumentType.OPTION.value in types else ELSE_EVERY
        return cls(
            types=types,
            base=frozenset(select.base or ()),
            quote=frozenset(select.quote or ()),
            expires_within_ns=None if within is None else int(within.seconds) * SECOND,
            most=select.max_instruments,
            every=every if select.refresh_interval is None else select.refresh_interval.seconds,
        )

    @property
    def key(self) -> str:
        """Equal where the same instruments are meant: a record made by other criteria is not followed."""
        within = "" if self.expires_within_ns is None else str(self.expires_within_ns // SECOND)
        parts = (sorted(self.types), sorted(self.base), sorted(self.quote), within)
        return msgspec.json.encode(parts).decode()

    def match(self, listed: Listed, now_ns: int) -> bool:
        """Whether it is of what is meant, whatever its state; nothing that has expired is."""
        expiry = listed.expiry_ns
        if expiry and expiry <= now_ns:
            return False
        if self.expires_within_ns is not None and not (expiry and expiry <= now_ns + self.expires_within_ns):
            return False
        return (
            (not self.types or listed.type in self.types)
            and (not self.base or listed.base in self.base)
            and (not self.quote or listed.quote in self.quote)
        )


class Chosen(msgspec.Struct, array_like=True, frozen=True, order=True):
    """One instrument of the record."""

    symbol: str
    native: str
    expiry_ns: int
    """0 = never."""


class TooMany(ValueError):
    """More match than may be taken; the message names the key, the number and the remedy."""

    def __init__(self, found: int, most: int) -> None:
        super().__init__(
            f"spec.instruments.select matches {found} instruments, more than maxInstruments {most}: "
            "narrow it by types, base, quote or expiresWithin, or raise maxInstruments (2000 at most)"
        )
        self.found = found


class NothingTrades(ValueError):
    """The list has no instrument in trading: the venue rests as a whole, which is no end of its instruments."""


def choose(
    criteria: Criteria,
    listed: Iterable[Listed],
    now_ns: int,
    had: Collection[str],
    to_native: Callable[[str], str],
) -> list[Chosen]:
    """What matches now, by symbol. ``had``: symbols of the last list, which also stay while they are paused.

    Raises TooMany, and NothingTrades for a list in which nothing does.
    """
    found: dict[str, Chosen] = {}
    alive = False
    for each in listed:
        alive = alive or each.state is Listing.TRADING
        if each.state is Listing.ENDED or (each.state is Listing.PAUSED and each.symbol not in had):
            continue
        if criteria.match(each, now_ns) and _named(each, to_native):
            found[each.symbol] = Chosen(each.symbol, each.native, each.expiry_ns)
    if not alive:
        raise NothingTrades("the venue's list has no instrument that trades")
    if len(found) > criteria.most:
        raise TooMany(len(found), criteria.most)
    return sorted(found.values())


def unexpired(chosen: Iterable[Chosen], now_ns: int) -> list[Chosen]:
    """What of a list is left by then."""
    return [each for each in chosen if not each.expiry_ns or each.expiry_ns > now_ns]


def next_expiry(chosen: Iterable[Chosen]) -> int | None:
    """When (ns) the first of them expires; None = none does."""
    return min((each.expiry_ns for each in chosen if each.expiry_ns), default=None)


def _named(listed: Listed, to_native: Callable[[str], str]) -> bool:
    """Whether our symbol leads to the venue's name: the venue may list what its adapter has no name for."""
    try:
        return to_native(listed.symbol) == listed.native
    except ValueError:
        return False

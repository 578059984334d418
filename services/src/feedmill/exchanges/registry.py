"""Venues by name, found by entry point so that a plug-in package can add one."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from feedmill.exchanges.base import Venue

GROUP = "feedmill.exchanges"


class UnknownVenue(LookupError):
    """No adapter of that name is installed."""


@cache
def venue_names() -> tuple[str, ...]:
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


@cache
def get_venue(exchange: str, market: str) -> Venue:
    """The adapter for ``exchange``/``market``; raises UnknownVenue naming those that exist."""
    name = f"{exchange}/{market}"
    for point in entry_points(group=GROUP):
        if point.name == name:
            venue = point.load()
            if not isinstance(venue, Venue):
                raise UnknownVenue(f"entry point {name} of {point.value} is not a feedmill Venue")
            return venue
    raise UnknownVenue(f"no adapter for {name}: installed are {', '.join(venue_names()) or 'none'}")

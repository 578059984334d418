"""The Python API: a ``Simulator`` runs the venues of a ``SimulatorConfig`` on the running event loop."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from feedmill.simulator.binance_server import BinanceVenue
from feedmill.simulator.binance_source import BinanceSource
from feedmill.simulator.catalog import listings
from feedmill.simulator.config import ConfigError, SimulatorConfig, VenueConfig
from feedmill.simulator.deribit_server import DeribitVenue
from feedmill.simulator.deribit_source import DeribitSource
from feedmill.simulator.faults import Fault, fault_from
from feedmill.simulator.tls import server_context
from feedmill.simulator.venue import Venue


class Simulator:
    """``async with Simulator(config) as simulator: simulator.endpoints["binance/Spot"]``."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.venues: dict[str, Venue] = {}
        self.ca_file: Path | None = None
        """With TLS: the certificate that clients must trust."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def endpoints(self) -> dict[str, tuple[str, str]]:
        """Venue -> (stream URL, REST URL), as a manifest's ``endpoints`` wants them."""
        return {name: (venue.stream, venue.rest) for name, venue in self.venues.items()}

    async def __aenter__(self) -> Simulator:
        context: ssl.SSLContext | None = None
        if self.config.tls:
            self._folder = tempfile.TemporaryDirectory(prefix="feedmill-simulator-")
            context, self.ca_file = server_context(Path(self._folder.name), self.config.host)
        try:
            for venue_config in self.config.venues:
                venue = _make(venue_config, self.config)
                self.venues[venue_config.venue] = venue
                await venue.start(context)
            for venue in self.venues.values():
                venue.beside = list(self.venues.values())
            await venue.write_keys()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        await asyncio.gather(*(venue.close() for venue in self.venues.values()))
        if self._folder is not None:
            self._folder.cleanup()

    def fault(self, kind: str | Fault, exchange: str | None = None, **fields: Any) -> int:
        """Put a fault in force at ``exchange`` (e.g. binance/Spot; None = at all); returns how much it hit at once.

        ``fields`` are those of :class:`feedmill.simulator.faults.Fault`. Raises ConfigError.
        """
        if exchange is not None and exchange not in self.venues:
            raise ConfigError(f"exchange {exchange!r} is not simulated here: use one of {', '.join(self.venues)}")
        hit = 0
        for name, venue in self.venues.items():
            if exchange in (None, name):
                hit += venue.inject(kind if isinstance(kind, Fault) else fault_from({"kind": kind, **fields}))
        return hit

    def stop_emitting(self, *, finish: bool = False) -> None:
        """No more messages. ``finish`` = first one last message on every running topic, so that every hole shows."""
        for venue in self.venues.values():
            venue.stop_emitting(finish=finish)

    async def drained(self) -> None:
        """Return when all messages are with the clients and the ledger is on disk."""
        await asyncio.gather(*(venue.drained() for venue in self.venues.values()))

    def stats(self) -> dict[str, dict[str, Any]]:
        return {name: venue.stats() for name, venue in self.venues.items()}


def _make(config: VenueConfig, simulator: SimulatorConfig) -> Venue:
    if simulator.recordings is not None:
        from feedmill.simulator.recorded import recorded_venue

        return recorded_venue(config, simulator)
    listed = listings(config.venue, config.symbols)
    if config.exchange == "binance":
        binance = BinanceVenue(config, simulator)
        source = BinanceSource(binance, listed)
        binance.use(source)
        binance.private.markets = source.markets
        return binance
    deribit = DeribitVenue(config, simulator)
    derived = DeribitSource(deribit, listed)
    deribit.use(derived)
    deribit.private.markets = derived.markets
    return deribit

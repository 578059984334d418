"""The budgets that all processes behind one outgoing address share at a venue, receivers of feeds included."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from feedmill.exchanges.base import VenueLimits
from feedmill.pool.lanes import Behind
from feedmill.pool.settings import PoolSettings
from feedmill.receiver.rest import HEADROOM, TOLD_SHARE, other_budget, weight_budget
from feedmill.shared.budget import Budget
from feedmill.shared.fleet import Fleet
from feedmill.shared.redis.url import RedisUrl

PART = 0.75
"""Of our weight for reconciliations. The rest subscribes a thousand accounts within any minute."""
SWEEPS = 0.6
"""Of that for sweeps, which go on for long: gaps are closed in any minute too."""
SWEEP, FRONT = "sweep", "front"
"""What requests of sweeps draw on, and those that all accounts of a market wait for."""


@dataclass(slots=True)
class Budgets:
    """Of one venue and environment."""

    weight: Budget
    """For what makes accounts listened to."""
    behind: dict[str, Budget]
    """For requests of a reconciliation, by the name they draw on."""
    connects: Budget
    limit: float
    """Weight that the venue may say is used, by everybody together, before we rest."""


class Fleets:
    """One :class:`Fleet` for each venue and environment that any account is at, for as long as the process lives."""

    def __init__(self, redis_url: RedisUrl, settings: PoolSettings, log: Any) -> None:
        self._url = redis_url
        self._settings = settings
        self._log = log
        self._all: dict[str, tuple[Fleet, Budgets]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, venue: str, limits: VenueLimits) -> Budgets:
        """``venue``: exchange.market.environment."""
        found = self._all.get(venue)
        if found is None:
            settings = self._settings
            name = f"{'.'.join(settings.pipeline)}.accounts-{settings.replica}"
            fleet = Fleet(self._url, f"{venue}.{settings.egress}", name=name, expected=settings.members, log=self._log)
            found = self._all[venue] = fleet, self._budgets(fleet, limits)
            self._tasks.add(asyncio.create_task(fleet.run(), name=f"fleet {venue}"))
        return found[1]

    def move(self, settings: PoolSettings) -> None:
        """Another outgoing address, or another number of members."""
        self._settings = settings
        for venue, (fleet, _) in self._all.items():
            fleet.move(f"{venue}.{settings.egress}", settings.members)

    def _budgets(self, fleet: Fleet, limits: VenueLimits) -> Budgets:
        share = self._settings.share
        weight = weight_budget(limits, share, fleet)
        behind: dict[str, Budget] = {"weight": Behind(weight, self._part(fleet, limits, "reconciliation", PART))}
        if limits.signed_weight:
            # Nobody else draws on it.
            behind["weight"] = fleet.within("signed", limits.signed_weight * share, limits.request_window)
        behind[FRONT] = weight
        behind[SWEEP] = Behind(behind["weight"], self._part(fleet, limits, SWEEP, PART * SWEEPS))
        behind["instruments"] = other_budget("instruments", fleet) if not limits.weight_windows else behind["weight"]
        connects = fleet.within("connects", max(1.0, limits.connects * share), limits.connects_window)
        return Budgets(weight, behind, connects, limits.request_weight * HEADROOM)

    def _part(self, fleet: Fleet, limits: VenueLimits, kind: str, part: float) -> Budget:
        if limits.weight_windows:
            most = limits.request_weight * TOLD_SHARE * part
            return fleet.windows(kind, most, limits.request_window, most)
        most = (limits.signed_weight or limits.request_weight) * self._settings.share * part
        return fleet.within(kind, max(1.0, most), limits.request_window)

    def document(self) -> dict[str, Any]:
        """Health section."""
        return {venue: fleet.document() for venue, (fleet, _) in self._all.items()}

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

"""Compares the store with what the API server has, and mends what no watch told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from feedmill.shared import log
from feedmill_operator import metrics
from feedmill_operator.kube.api import Kind, KubeApi, Version
from feedmill_operator.kube.kinds import SECRET
from feedmill_operator.names import MANAGED_BY, MANAGER
from feedmill_operator.reconcile.intake import Intake
from feedmill_operator.reconcile.store import Store

_LOOK = 0.1
_FIRST = 60.0
"""Seconds the watches have to deliver what there is at the start, counted from their last progress."""
_STALE = 1.0
"""Seconds without progress after which the list is made anew: what was made or deleted since would be waited for."""
_GRACE = 5.0
"""Seconds a change may be under way in a watch."""
_PARALLEL = 8

Place = tuple[str, str]
"""(namespace, name)"""


class Resync:
    """``namespaces``: (None,) = all. ``selector``: by which objects of a kind are watched."""

    def __init__(
        self,
        api: KubeApi,
        store: Store[Any],
        intake: Intake,
        namespaces: Sequence[str | None],
        selector: Callable[[Kind], str],
        *,
        first: float = _FIRST,
        grace: float = _GRACE,
    ) -> None:
        self._api = api
        self._store = store
        self._intake = intake
        self._namespaces = namespaces
        self._selector = selector
        self._first, self._grace = first, grace
        self._log = log.get_logger()

    async def first(self, kinds: Collection[Kind], stop: asyncio.Event) -> None:
        """Wait until everything that is there was seen. Raises ApiError."""
        await self._compare(kinds, stop, self._first)

    async def again(self, kinds: Collection[Kind], stop: asyncio.Event) -> list[Kind]:
        """Gives the kinds of which something was missed (and is known now). Raises ApiError."""
        return await self._compare(kinds, stop, self._grace)

    async def _compare(self, kinds: Collection[Kind], stop: asyncio.Event, patience: float) -> list[Kind]:
        listed = {kind: await self._listed(kind) for kind in kinds}
        open_kinds = {kind: self._differences(kind, versions) for kind, versions in listed.items()}
        now = asyncio.get_running_loop().time
        deadline, left = now() + patience, _count(open_kinds)
        stale = now() + _STALE
        while left and now() < deadline and not stop.is_set():
            await asyncio.sleep(_LOOK)
            if now() >= stale:
                listed |= {kind: await self._listed(kind) for kind, found in open_kinds.items() if found}
                stale = now() + _STALE
            open_kinds = {kind: self._differences(kind, listed[kind]) for kind, found in open_kinds.items() if found}
            if (count := _count(open_kinds)) < left:
                left, deadline, stale = count, now() + patience, now() + _STALE
        if stop.is_set():
            return []
        return [kind for kind, places in open_kinds.items() if places and await self._mend(kind, places)]

    async def _listed(self, kind: Kind) -> dict[Place, Version]:
        selector = self._selector(kind)
        if kind == SECRET:  # The users' own are not kept.
            selector = f"{selector},{MANAGED_BY}={MANAGER}"
        found: dict[Place, Version] = {}
        for namespace in self._namespaces:
            for version in await self._api.versions(kind, namespace, labels=selector):
                found[version.namespace, version.name] = version
        return found

    def _differences(self, kind: Kind, listed: dict[Place, Version]) -> list[Place]:
        """Where the store has not what was listed, nor anything newer; or has what was not listed."""
        kept = self._store.versions(kind)
        differ = [
            place
            for place, version in listed.items()
            if place not in kept or (kept[place][0] != version.uid or _older(kept[place][1], version.resource_version))
        ]
        return differ + [place for place in kept if place not in listed]

    async def _mend(self, kind: Kind, places: Sequence[Place]) -> bool:
        """Whether anything really was missed."""
        limit = asyncio.Semaphore(_PARALLEL)

        async def one(place: Place) -> bool:
            async with limit:
                found = await self._api.get(kind, *place)
            kept = self._store.versions(kind).get(place)
            if found is None:
                if kept is None:
                    return False
                self._intake.take(
                    kind, "DELETED", {"metadata": {"namespace": place[0], "name": place[1], "uid": kept[0]}}
                )
                return True
            metadata = found["metadata"]
            if kept == (metadata["uid"], metadata["resourceVersion"]):
                return False  # It was made after the list, or the watch told it just now.
            self._intake.take(kind, "MODIFIED", found)
            return self._store.versions(kind).get(place) != kept

        missed = sum(await asyncio.gather(*(one(place) for place in places)))
        if missed:
            metrics.watch_missed.labels(kind.kind).inc(missed)
            self._log.warning("watch.missed", kind=kind.kind, objects=missed, action="taken from the list")
        return bool(missed)


def _count(found: dict[Kind, list[Place]]) -> int:
    return sum(map(len, found.values()))


def _older(version: str, than: str) -> bool:
    try:
        return int(version) < int(than)
    except ValueError:
        return version != than

"""What the controller and the reconcilers know of each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from feedmill_operator.build.inputs import ClusterFacts
from feedmill_operator.reconcile.queue import Key


@dataclass(slots=True)
class Facts:
    """Holds what is known of the cluster now; the controller renews it at each resync."""

    current: ClusterFacts = field(default_factory=ClusterFacts)


class Reconciler(Protocol):
    """Brings one custom resource to what it says. Raises ApiError to be tried again with back-off."""

    async def reconcile(self, key: Key) -> float | None:
        """May give in how many seconds the object is due again; the resync comes anyway."""


class EventSink(Protocol):
    """Where Events about custom resources go; never fails, never waits."""

    def normal(self, about: Mapping[str, Any], reason: str, message: str) -> None: ...

    def warning(self, about: Mapping[str, Any], reason: str, message: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a controller works with."""

    reconcilers: Mapping[str, Reconciler]
    """By the kind of their custom resource."""
    background: Sequence[Callable[[], Awaitable[None]]] = ()
    """What runs beside the queue while this process leads, until it is cancelled."""

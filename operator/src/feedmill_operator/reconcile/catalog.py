"""What the reconcilers know of each other: parsed feeds and accounts, and how each pipeline stands.

A pipeline is judged once, by its own reconciler; its feeds and accounts go by that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from feedmill.resources.account import ExchangeAccount
from feedmill.resources.checks import Venues
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.load import installed_venues
from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Kind
from feedmill_operator.reconcile.facts import PoolView
from feedmill_operator.reconcile.observe import Pods
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.run_status import FINAL
from feedmill_operator.reconcile.validity import Refusal, read_account, read_feed

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class PipelineView:
    """A pipeline as its feeds need it."""

    uid: str
    generation: int
    image: str
    pipeline: FeedPipeline | None
    refusal: Refusal | None
    """Why it is not accepted; it may be good in itself still (a Secret is missing)."""


class _OfKind(Generic[Parsed]):
    """Objects of a kind, parsed once a generation."""

    def __init__(self, store: Pods, kind: Kind, read: Callable[[Mapping[str, Any]], Parsed | Refusal]) -> None:
        self._store = store
        self._kind = kind
        self._read = read
        self._known: dict[tuple[str, str], tuple[str, int, Parsed | Refusal]] = {}
        """(namespace, name) -> (uid, generation, what came of it)."""

    def of(self, body: Mapping[str, Any]) -> Parsed | Refusal:
        """One as the API server gives it."""
        metadata = body["metadata"]
        place = metadata["namespace"], metadata["name"]
        return self._parsed(place, metadata.get("uid", ""), int(metadata["generation"]), lambda: body)

    def _parsed(
        self, place: tuple[str, str], uid: str, generation: int, body: Callable[[], Mapping[str, Any]]
    ) -> Parsed | Refusal:
        known = self._known.get(place)
        if known is None or known[:2] != (uid, generation):
            known = self._known[place] = (uid, generation, self._read(body()))
        return known[2]

    def all(self, namespace: str, pipeline: str) -> list[Parsed]:
        """Those of a pipeline that can be carried out, by name: suspended ones too, and those that wait for a Secret,
        since what they have received before is still to be processed."""
        found = []
        for live in sorted(self._store.of_kind(self._kind, namespace), key=lambda live: live.name):
            if live.pipeline != pipeline or live.deleting:
                continue
            made = self._parsed(
                (live.namespace, live.name), live.uid, live.generation, partial(getattr, live, "manifest")
            )
            if not isinstance(made, Refusal):
                found.append(made)
        return found

    def forget(self, namespace: str, name: str) -> None:
        self._known.pop((namespace, name), None)


class Catalog:
    """In memory only; all of it comes again by reconciling."""

    def __init__(self, store: Pods, venues: Venues | None = None) -> None:
        known = venues or installed_venues()
        self._store = store
        self.feeds: _OfKind[ExchangeFeed] = _OfKind(store, kinds.FEED, lambda body: read_feed(body, known))
        self.accounts: _OfKind[ExchangeAccount] = _OfKind(store, kinds.ACCOUNT, lambda body: read_account(body, known))
        self._views: dict[tuple[str, str], PipelineView] = {}
        self._pools: dict[tuple[str, str], PoolView] = {}

    def dependents(self, namespace: str, pipeline: str) -> list[Key]:
        """Feeds and accounts that name a pipeline, and runs that have not ended."""
        return [
            Key(kind.kind, live.namespace, live.name)
            for kind in (kinds.FEED, kinds.ACCOUNT, kinds.BACKUP, kinds.RESTORE)
            for live in self._store.of_kind(kind, namespace)
            if live.pipeline == pipeline and not (kind in kinds.RUNS and live.status.get("phase") in FINAL)
        ]

    def view(self, namespace: str, name: str) -> PipelineView | None:
        """None until its reconciler has looked at it."""
        return self._views.get((namespace, name))

    def set_view(self, namespace: str, name: str, view: PipelineView | None) -> bool:
        """Whether it is another than before. None = it is gone."""
        before = self._views.get((namespace, name))
        if view is None:
            self._views.pop((namespace, name), None)
        else:
            self._views[namespace, name] = view
        return before != view

    def pool(self, namespace: str, pipeline: str) -> PoolView:
        """What is known of a pipeline's account receivers; nothing until its reconciler has looked."""
        return self._pools.get((namespace, pipeline), PoolView())

    def set_pool(self, namespace: str, pipeline: str, pool: PoolView | None) -> list[Key]:
        """Gives the accounts of which something else is said than before. None = the pipeline is gone."""
        before, after = self.pool(namespace, pipeline), pool or PoolView()
        if pool is None:
            self._pools.pop((namespace, pipeline), None)
        else:
            self._pools[namespace, pipeline] = pool
        mine = [key for key in self.dependents(namespace, pipeline) if key.kind == kinds.ACCOUNT.kind]
        if before.trouble != after.trouble:
            return mine

        def known(view: PoolView, key: Key) -> object:
            name = f"{key.namespace}/{key.name}"
            return view.said.get(name, view.awaited), view.generations.get(name)

        return [key for key in mine if known(before, key) != known(after, key)]

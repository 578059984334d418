"""What the reconcilers of feeds and of pipelines know of each other: parsed feeds, and how each pipeline stands.

A pipeline is judged once, by its own reconciler; its feeds go by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feedmill.resources.checks import Venues
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.load import installed_venues
from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator.kube import kinds
from feedmill_operator.reconcile.observe import Pods
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.validity import Refusal, read_feed


@dataclass(frozen=True, slots=True)
class PipelineView:
    """A pipeline as its feeds need it."""

    uid: str
    generation: int
    image: str
    pipeline: FeedPipeline | None
    refusal: Refusal | None
    """Why it is not accepted; it may be good in itself still (a Secret is missing)."""


class Catalog:
    """In memory only; all of it comes again by reconciling."""

    def __init__(self, store: Pods, venues: Venues | None = None) -> None:
        self._store = store
        self._venues = venues or installed_venues()
        self._feeds: dict[tuple[str, str], tuple[str, int, ExchangeFeed | Refusal]] = {}
        """(namespace, name) -> (uid, generation, what came of it)."""
        self._views: dict[tuple[str, str], PipelineView] = {}

    def feed(self, body: Mapping[str, Any]) -> ExchangeFeed | Refusal:
        """A feed as the API server gives it, parsed once a generation."""
        metadata = body["metadata"]
        return self._parsed(
            (metadata["namespace"], metadata["name"]),
            metadata.get("uid", ""),
            int(metadata["generation"]),
            lambda: body,
        )

    def _parsed(self, place: tuple[str, str], uid: str, generation: int, read: Any) -> ExchangeFeed | Refusal:
        known = self._feeds.get(place)
        if known is None or known[:2] != (uid, generation):
            known = self._feeds[place] = (uid, generation, read_feed(read(), self._venues))
        return known[2]

    def feeds_of(self, namespace: str, pipeline: str) -> list[ExchangeFeed]:
        """All feeds of a pipeline that can be carried out, by name: suspended ones too, and those that wait for a
        Secret, since what they have received before is still to be processed."""
        found = []
        for live in self._store.of_kind(kinds.FEED, namespace):
            if live.pipeline != pipeline or live.deleting:
                continue
            feed = self._parsed((live.namespace, live.name), live.uid, live.generation, lambda live=live: live.manifest)
            if isinstance(feed, ExchangeFeed):
                found.append(feed)
        return sorted(found, key=lambda feed: feed.metadata.name)

    def feed_keys(self, namespace: str, pipeline: str) -> list[Key]:
        """Of all feeds that name a pipeline."""
        return [
            Key(kinds.FEED.kind, live.namespace, live.name)
            for live in self._store.of_kind(kinds.FEED, namespace)
            if live.pipeline == pipeline
        ]

    def forget_feed(self, namespace: str, name: str) -> None:
        self._feeds.pop((namespace, name), None)

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

"""Takes in what the watches tell: into the store, and as keys into the queue where it is news.

What the operator itself has just written is no news (the store has it already); a status alone rouses only those who
read it. That keeps one change from becoming a storm.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from feedmill_operator import metrics, names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Kind
from feedmill_operator.reconcile.queue import Key, WorkQueue
from feedmill_operator.reconcile.store import Live, Store

SOON = 0.5
"""Seconds in which changes of many children, or of many feeds of one pipeline, are taken together."""
_SPREAD = 0.005
"""Seconds between two feeds or accounts that are roused by one change of their pipeline."""
_STATUS_COUNTS = frozenset({kinds.DEPLOYMENT, kinds.STATEFUL_SET, kinds.JOB, kinds.PVC})
"""Children whose status says something of their owner."""
_CUSTOM = frozenset(kinds.CUSTOM)
_OF_PIPELINES = (kinds.FEED, kinds.ACCOUNT)
"""Kinds whose objects are carried out within a pipeline."""
_COUNT_FOR_PIPELINES = (*_OF_PIPELINES, *kinds.RUNS)
"""Kinds whose objects a pipeline's configuration or status is made of."""


class Intake:
    """All methods belong to the event loop's thread. ``probe``: called with namespace and name of a changed Lease."""

    def __init__(self, store: Store[Any], queue: WorkQueue, probe: Callable[[str, str], None]) -> None:
        self._store = store
        self._queue = queue
        self._probe = probe
        self._secrets: dict[tuple[str, str], str] = {}
        """resourceVersion of the users' watched Secrets; their content is not kept."""

    def take(self, kind: Kind, change: str | None, obj: Mapping[str, Any]) -> None:
        """One event. ``change``: ADDED, MODIFIED, DELETED; None = it was listed."""
        metrics.watch_events.labels(kind.kind).inc()
        gone = change == "DELETED"
        metadata = obj["metadata"]
        if kind in _CUSTOM:
            self._custom(kind, obj, gone)
        elif kind == kinds.POD:
            self._pod(obj, gone)
        elif kind == kinds.LEASE:
            self._probe(metadata.get("namespace", ""), metadata["name"])
        elif kind == kinds.SECRET and (metadata.get("labels") or {}).get(names.MANAGED_BY) != names.MANAGER:
            self._user_secret(metadata, gone)
        else:
            self._child(kind, obj, gone)

    def _custom(self, kind: Kind, obj: Mapping[str, Any], gone: bool) -> None:
        before, after = self._put(kind, obj, gone)
        if before is after:
            return
        known = after or before
        assert known is not None  # They differ, so one of them is there.
        if before is None or after is None or _asks(before) != _asks(after):
            self._queue.add(Key(kind.kind, known.namespace, known.name))
            self._neighbours(kind, before, after)
        elif _tells(before) != _tells(after):
            self._neighbours(kind, before, after)

    def _neighbours(self, kind: Kind, before: Live | None, after: Live | None) -> None:
        """A pipeline's configuration names its feeds and accounts, and a feed's depends on its pipeline."""
        known = after or before
        assert known is not None
        if kind == kinds.PIPELINE:
            near = [
                live
                for dependent in _OF_PIPELINES
                for live in self._store.of_kind(dependent, known.namespace)
                if live.pipeline == known.name
            ]
            for number, live in enumerate(near):
                self._queue.add_after(Key(live.kind.kind, live.namespace, live.name), number * _SPREAD)
        elif kind in _COUNT_FOR_PIPELINES:
            for name in {live.pipeline for live in (before, after) if live is not None and live.pipeline}:
                self._queue.add_after(Key(kinds.PIPELINE.kind, known.namespace, name), SOON)

    def _child(self, kind: Kind, obj: Mapping[str, Any], gone: bool) -> None:
        before, after = self._put(kind, obj, gone)
        known = after or before
        if before is after or known is None:
            return
        key = owner_key(known.namespace, known.labels)
        if key is None and before is not None:
            key = owner_key(before.namespace, before.labels)  # Somebody took our labels away.
        if key is None:
            return
        run = run_key(known.namespace, known.labels, known.name) if kind == kinds.JOB else None
        if before is None or after is None or _content(before) != _content(after):
            self._queue.add(key)
            if run is not None:
                self._queue.add(run)
        elif kind in _STATUS_COUNTS and before.status_body != after.status_body:
            self._queue.add_after(run or key, SOON)

    def _pod(self, obj: Mapping[str, Any], gone: bool) -> None:
        metadata = obj["metadata"]
        if gone:
            news = self._store.remove_pod(metadata["namespace"], metadata["name"], metadata.get("uid"))
        else:
            news = self._store.update_pod(obj)
        namespace, labels = metadata["namespace"], metadata.get("labels") or {}
        job = str(labels.get("batch.kubernetes.io/job-name") or labels.get("job-name") or "")
        key = run_key(namespace, labels, job) or owner_key(namespace, labels)
        if news and key is not None:
            self._queue.add_after(key, SOON)

    def _user_secret(self, metadata: Mapping[str, Any], gone: bool) -> None:
        place = (metadata["namespace"], metadata["name"])
        version = "" if gone else str(metadata.get("resourceVersion", ""))
        if self._secrets.get(place, "") == version:
            return
        if gone:
            del self._secrets[place]
        else:
            self._secrets[place] = version
        # Whoever names it, and now and then somebody who only names something alike.
        named = f'"{place[1]}"'.encode()
        for kind in (kinds.PIPELINE, kinds.FEED, kinds.ACCOUNT):
            for live in self._store.of_kind(kind, place[0]):
                if named in live.body:
                    self._queue.add(Key(kind.kind, live.namespace, live.name))

    def _put(self, kind: Kind, obj: Mapping[str, Any], gone: bool) -> tuple[Live | None, Live | None]:
        """(before, after); the same object twice = no news."""
        metadata = obj["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if gone:
            return self._store.remove(kind, namespace, name, metadata.get("uid")), None
        before = self._store.get(kind, namespace, name)
        return before, self._store.update(kind, obj)


def owner_key(namespace: str, labels: Mapping[str, str]) -> Key | None:
    """The custom resource that an object with these labels belongs to."""
    if feed := labels.get(names.FEED):
        return Key(kinds.FEED.kind, namespace, feed)
    if pipeline := labels.get(names.PIPELINE):
        return Key(kinds.PIPELINE.kind, namespace, pipeline)
    return None


def run_key(namespace: str, labels: Mapping[str, str], job: str) -> Key | None:
    """The FeedBackup or FeedRestore that a Job or its pod carries out: it has the name of a schedule's Job."""
    run = labels.get(names.RUN)
    if not run or run == names.Run.PRUNE:
        return None
    kind = kinds.RESTORE if run in (names.Run.VERIFY, names.Run.RESTORE) else kinds.BACKUP
    return Key(kind.kind, namespace, labels.get(names.RUN_OF) or job)


def spread(interval: float, source: random.Random) -> float:
    """When within a resync an object is looked at, seconds."""
    return source.uniform(0.0, interval * 0.8)


def _asks(live: Live) -> tuple[object, ...]:
    """What of a custom resource its user may change."""
    return (live.uid, live.generation, live.annotations, live.labels, live.deleting)


def _tells(live: Live) -> tuple[object, ...]:
    """What of a custom resource's status its neighbours work with."""
    status = live.status
    accepted = [
        (condition.get("status"), condition.get("observedGeneration"))
        for condition in status.get("conditions") or ()
        if condition.get("type") == "Accepted"
    ]
    return (status.get("image"), status.get("migration"), status.get("phase"), accepted)


def _content(live: Live) -> tuple[object, ...]:
    """What of a child only we should change."""
    return (
        live.uid,
        live.generation,
        live.deleting,
        live.foreign,
        live.labels,
        live.annotations,
        live.owner_uid,
        _stripped(live),
    )


def _stripped(live: Live) -> bytes:
    """The body of kinds without a generation; elsewhere that tells enough."""
    if live.generation:
        return b""
    manifest = live.manifest
    manifest.pop("metadata")
    return repr(manifest).encode()

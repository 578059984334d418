"""Ties it together: watches fill the store and the queue, the queue calls the reconcilers, the resync mends what was
missed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from feedmill.shared import log
from feedmill_operator import metrics, names
from feedmill_operator.build.inputs import ClusterFacts
from feedmill_operator.config import Options
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Kind, KubeApi
from feedmill_operator.reconcile.intake import Intake, spread
from feedmill_operator.reconcile.ports import Facts, Reconciler
from feedmill_operator.reconcile.queue import Key, WorkQueue
from feedmill_operator.reconcile.resync import Resync
from feedmill_operator.reconcile.store import Store

_AGAIN = 5.0
"""Seconds until a first look at the cluster that failed, or that found kinds of ours missing, is repeated."""
_DEAF = 2
"""Resyncs in a row that find what a kind's watch did not tell."""


class Watcher(Protocol):
    """What delivers the changes: :class:`feedmill_operator.watching.Watching`."""

    kinds: Collection[Kind]

    def restart(self, cause: str) -> None: ...

    async def run(self, stop: asyncio.Event) -> None: ...


Span = Callable[[Key], AbstractContextManager[Any]]


def selector(kind: Kind) -> str:
    """Label selector by which objects of a kind are watched and listed."""
    if kind in kinds.CUSTOM or kind == kinds.LEASE:
        return ""
    if kind == kinds.SECRET:
        return f"{names.WATCH}=true"
    return f"{names.MANAGED_BY}={names.MANAGER}"


class Controller:
    """``facts``, ``store`` and ``queue`` are what reconcilers are made with; then ``reconcilers`` (by the kind of their
    custom resource) and ``watcher`` are set, and ``run`` runs."""

    def __init__(
        self,
        api: KubeApi,
        options: Options,
        pod_facts: Callable[[Mapping[str, Any]], Any],
        *,
        probe: Callable[[str, str], None] = lambda namespace, name: None,
        span: Span = lambda key: nullcontext(),
        random_source: random.Random | None = None,
    ) -> None:
        self._api = api
        self._options = options
        self._span = span
        self._random = random_source or random.Random()
        self._log = log.get_logger()
        self._synced = False
        self._missed: dict[Kind, int] = {}
        self.facts = Facts(ClusterFacts(operator_namespace=options.operator_namespace))
        self.store: Store[Any] = Store(pod_facts)
        self.queue = WorkQueue(self._reconcile, options.workers)
        self.intake = Intake(self.store, self.queue, probe)
        self.reconcilers: Mapping[str, Reconciler] = {}
        self.watcher: Watcher | None = None
        self._resync = Resync(api, self.store, self.intake, options.namespaces or (None,), selector)

    @property
    def synced(self) -> bool:
        """All there is was seen once."""
        return self._synced

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. Raises what no retry can mend."""
        watcher = self.watcher
        if watcher is None:
            raise RuntimeError("a Controller needs a watcher before it runs")
        watcher.kinds = await self._until_known(stop)
        watching = asyncio.create_task(watcher.run(stop), name="watching")
        working = asyncio.create_task(self._work(stop), name="working")
        try:
            done, _ = await asyncio.wait([watching, working], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await asyncio.gather(watching, working)
        finally:
            for task in (watching, working):
                task.cancel()
            await asyncio.gather(watching, working, return_exceptions=True)

    async def _until_known(self, stop: asyncio.Event) -> Collection[Kind]:
        while not stop.is_set():
            try:
                return await self._look()
            except ApiError as error:
                self._log.warning("cluster.unreachable", error=str(error), retry_in_seconds=_AGAIN)
                await _pause(stop, _AGAIN)
        return ()

    async def _work(self, stop: asyncio.Event) -> None:
        # Nothing is reconciled before the children were seen: each would be written again for nothing.
        while not stop.is_set():
            try:
                await self._resync.first(self._kinds(), stop)
                break
            except ApiError as error:
                self._log.warning("sync.failed", error=str(error), retry_in_seconds=_AGAIN)
                await _pause(stop, _AGAIN)
        if stop.is_set():
            return
        self._synced = True
        self._log.info("synced", objects={kind.kind: len(self.store.versions(kind)) for kind in self._kinds()})
        resyncing = asyncio.create_task(self._resyncs(stop), name="resync")
        working = asyncio.create_task(self.queue.run(stop), name="queue")
        try:
            await asyncio.wait([resyncing, working], return_when=asyncio.FIRST_COMPLETED)
            if resyncing.done() and not stop.is_set():
                resyncing.result()
            await working
        finally:
            for task in (resyncing, working):
                task.cancel()
            await asyncio.gather(resyncing, working, return_exceptions=True)

    # Resync.

    async def _resyncs(self, stop: asyncio.Event) -> None:
        while True:
            complete = all(kind in self._kinds() for kind in kinds.CUSTOM)
            await _pause(stop, self._options.resync * self._random.uniform(0.9, 1.1) if complete else _AGAIN)
            if stop.is_set():
                return
            try:
                with metrics.resync_seconds.time():
                    await self._resync_once(stop)
            except ApiError as error:
                self._log.warning("resync.failed", error=str(error))

    async def _resync_once(self, stop: asyncio.Event) -> None:
        assert self.watcher is not None
        before = self.facts.current
        served = await self._look()
        if set(served) != set(self.watcher.kinds):
            self.watcher.kinds = served
            self.watcher.restart("kinds")
        missed = await self._resync.again(self._kinds(), stop)
        self._missed = {kind: self._missed.get(kind, 0) + 1 for kind in missed}
        if any(times >= _DEAF for times in self._missed.values()):
            self._log.warning("watch.deaf", kinds=sorted(kind.kind for kind in self._missed), action="watch anew")
            self._missed = {}
            self.watcher.restart("deaf")
        hurry = before != self.facts.current
        for kind in kinds.CUSTOM:
            for live in self.store.of_kind(kind):
                wait = 0.0 if hurry else spread(self._options.resync, self._random)
                self.queue.add_after(Key(kind.kind, live.namespace, live.name), wait)

    async def _look(self) -> Collection[Kind]:
        """Renew the facts; gives the kinds to watch."""
        optional = {kind: await self._api.serves(kind) for kind in kinds.OPTIONAL}
        custom = [kind for kind in kinds.CUSTOM if await self._api.serves(kind)]
        if len(custom) < len(kinds.CUSTOM):
            missing = sorted(kind.plural for kind in set(kinds.CUSTOM) - set(custom))
            self._log.warning("crds.missing", missing=missing, remedy="install the CRDs of crds/ or of the chart")
        self.facts.current = ClusterFacts(
            pod_monitor=optional[kinds.POD_MONITOR],
            prometheus_rule=optional[kinds.PROMETHEUS_RULE],
            operator_namespace=self._options.operator_namespace,
        )
        made = [kind for kind in kinds.MADE if optional.get(kind, True)]
        return (*custom, *made, kinds.POD, kinds.PVC, kinds.LEASE)

    def _kinds(self) -> list[Kind]:
        """What the store should hold."""
        watched = self.watcher.kinds if self.watcher is not None else ()
        return [kind for kind in watched if kind != kinds.LEASE]

    # The queue's handler.

    async def _reconcile(self, key: Key) -> float | None:
        reconciler = self.reconcilers.get(key.kind)
        if reconciler is None:
            return None
        with self._span(key):
            again = await reconciler.reconcile(key)
        if self.store.get(_CUSTOM[key.kind], key.namespace, key.name) is None:
            self.queue.forget(key)
            return None
        return again


_CUSTOM = {kind.kind: kind for kind in kinds.CUSTOM}


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass

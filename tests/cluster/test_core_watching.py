"""Watches, store and queue against the real API server, through a proxy that counts and breaks things."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterkit.api import Object
from clusterkit.cluster import Cluster
from clusterkit.extras import monitoring_crds
from clusterkit.proxy import FaultProxy, proxying
from clusterkit.samples import feed, pipeline
from feedmill_operator import names
from feedmill_operator.config import Options
from feedmill_operator.health import Hearing
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Manifest
from feedmill_operator.kube.client import KubeClient, credentials, load_configuration
from feedmill_operator.kube.probe import Probe
from feedmill_operator.reconcile.controller import Controller, selector
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.watching import Watching

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Of kopf's own coroutines, when one of its lives is cut short."""
WITHIN = 90.0


class Running:
    """A controller whose reconciler only counts."""

    def __init__(self, proxy: FaultProxy, folder: Path, namespace: str, resync: float = 3600.0) -> None:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(proxy.url)))
        self.proxy = proxy
        self.namespace = namespace
        self.ran: Counter[Key] = Counter()
        self.hearing = Hearing(300.0)
        self.probes = 0
        self.client = KubeClient(load_configuration(kubeconfig), concurrency=8)
        options = Options(operand_image="services:1", namespaces=(namespace,), resync=resync)
        self.controller = Controller(self.client, options, lambda pod: pod["metadata"]["name"], probe=self._probe)
        self.controller.reconcilers = {kind.kind: self for kind in kinds.CUSTOM}
        configuration = load_configuration(kubeconfig)
        self.watching = Watching(
            self.controller.intake.take,
            lambda: credentials(configuration),
            self.hearing,
            namespaces=options.namespaces,
            selectors=selector,
            lease="probe",
        )
        self.controller.watcher = self.watching
        self.stop = asyncio.Event()

    def _probe(self, namespace: str, name: str) -> None:
        assert (namespace, name) == (self.namespace, "probe")
        self.probes += 1
        self.hearing.probe()

    async def reconcile(self, key: Key) -> None:
        self.ran[key] += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        task = asyncio.create_task(self.controller.run(self.stop))
        try:
            await self.until(lambda: self.controller.synced or task.done())
            yield self
            assert not task.done(), task.exception()
        finally:
            self.stop.set()
            await asyncio.wait_for(task, 60)
            self.client.close()

    async def until(self, condition: Callable[[], object], within: float = WITHIN) -> None:
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.05)

    async def roused(self, key: Key, by: Callable[[], Awaitable[object]]) -> None:
        """That ``by`` leads to a run of ``key``."""
        await self.until(lambda: self.controller.queue.idle)
        before = self.ran[key]
        await by()
        await self.until(lambda: self.ran[key] > before)


def _kubeconfig(server: str) -> Object:
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{"name": "t", "cluster": {"server": server}}],
        "users": [{"name": "t", "user": {}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
    }  # fmt: skip


@pytest.fixture
def proxy(api_cluster: Cluster) -> Iterator[FaultProxy]:
    with proxying(api_cluster.api) as found:
        yield found


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(proxy: FaultProxy, api_namespace: str, tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def one(**options: Any) -> Running:
            return await stack.enter_async_context(Running(proxy, tmp_path, api_namespace, **options).running())

        yield one
    # What kopf leaves lying about in this process is to be found here, not in another test.
    gc.collect()


class Made:
    """What a user and the operator would make, written past the proxy."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.api, self.namespace = cluster.api, namespace
        self.feed = Key("ExchangeFeed", namespace, "spot")
        self.pipeline = Key("FeedPipeline", namespace, "main")

    async def create(self, plural: str, body: Object) -> Object:
        return await asyncio.to_thread(self.api.create, plural, body)

    async def merge(self, plural: str, name: str, body: Object, sub: str = "") -> Object:
        return await asyncio.to_thread(self.api.merge, plural, self.namespace, name, body, sub)

    async def delete(self, plural: str, name: str) -> None:
        await asyncio.to_thread(self.api.delete, plural, self.namespace, name)

    async def both(self) -> None:
        await self.create("feedpipelines", pipeline("main", self.namespace))
        await self.create("exchangefeeds", feed("spot", self.namespace))

    def child(self, name: str = "spot-feed-config", **data: str) -> Manifest:
        labels = {names.MANAGED_BY: names.MANAGER, names.FEED: "spot", names.PIPELINE: "main"}
        return {"metadata": {"name": name, "namespace": self.namespace, "labels": labels}, "data": data}


@pytest.fixture
def made(api_cluster: Cluster, api_namespace: str) -> Made:
    return Made(api_cluster, api_namespace)


def writes(proxy: FaultProxy) -> int:
    return proxy.count("create", "update", "patch", "apply", "delete")


async def test_everything_is_seen_and_the_framework_writes_nothing(start: Start, made: Made, proxy: FaultProxy) -> None:
    await made.both()
    await made.create("configmaps", made.child(x="1"))
    await made.create(
        "secrets", {"metadata": {"name": "private", "namespace": made.namespace}, "data": {"k": "c2VjcmV0"}}
    )
    running = await start()
    store = running.controller.store
    await running.until(lambda: running.ran[made.feed] and running.ran[made.pipeline])
    assert [live.name for live in store.of_kind(kinds.CONFIG_MAP)] == ["spot-feed-config"]
    await running.roused(made.feed, lambda: made.merge("configmaps", "spot-feed-config", {"data": {"x": "2"}}))
    await running.roused(made.feed, lambda: made.delete("configmaps", "spot-feed-config"))
    assert store.of_kind(kinds.CONFIG_MAP) == []
    await running.roused(made.feed, lambda: made.create("configmaps", made.child(x="1")))
    await running.roused(made.feed, lambda: made.merge("exchangefeeds", "spot", {"spec": {"suspend": True}}))
    await running.roused(made.pipeline, lambda: made.delete("exchangefeeds", "spot"))
    await running.until(lambda: not store.of_kind(kinds.FEED))
    # A feed that is gone leaves nothing behind, least of all a finalizer.
    assert made.api.get("exchangefeeds", made.namespace, "spot") is None
    kept = made.api.need("feedpipelines", made.namespace, "main")["metadata"]
    assert "finalizers" not in kept
    assert "annotations" not in kept
    assert writes(proxy) == 0
    # Unlabelled Secrets are neither listed nor watched.
    assert store.of_kind(kinds.SECRET) == []


async def test_a_status_alone_does_not_rouse(start: Start, made: Made) -> None:
    await made.both()
    running = await start()
    await running.until(lambda: running.ran[made.feed] and running.controller.queue.idle)
    store = running.controller.store
    before = running.ran[made.feed]
    await made.merge("exchangefeeds", "spot", {"status": {"data": "Fresh"}}, "status")
    await running.until(lambda: b"Fresh" in store.of_kind(kinds.FEED)[0].status_body)
    await running.until(lambda: running.controller.queue.idle)
    assert running.ran[made.feed] == before


async def test_a_users_secret_with_the_label_rouses_who_names_it(start: Start, made: Made) -> None:
    await made.both()
    running = await start()
    labels = {names.WATCH: "true"}
    secret = {"metadata": {"name": "redis", "namespace": made.namespace, "labels": labels}, "stringData": {"url": "x"}}
    await running.roused(made.pipeline, lambda: made.create("secrets", secret))
    await running.roused(made.pipeline, lambda: made.merge("secrets", "redis", {"stringData": {"url": "y"}}))
    await running.roused(made.pipeline, lambda: made.delete("secrets", "redis"))


@pytest.mark.parametrize("how", ["dropped", "expired", "refused", "throttled", "gone"])
async def test_watches_that_break_go_on(start: Start, made: Made, proxy: FaultProxy, how: str) -> None:
    await made.both()
    await made.create("configmaps", made.child(x="1"))
    running = await start()
    store = running.controller.store

    # Kinds of which there is nothing may still be on their way: to be in sync needs those only of which there is.
    await running.until(lambda: proxy.watching > 10)

    async def breaks() -> None:
        if how == "refused":
            proxy.fail(lambda request: request.verb == "watch", 500, 30)
        elif how == "throttled":
            proxy.fail(lambda request: request.verb == "watch", 429, 30, retry_after=1)
        elif how == "gone":
            proxy.fail(lambda request: request.verb == "watch", 410, 30)
        assert (proxy.expire_watches() if how == "expired" else proxy.drop_watches()) > 10
        await made.delete("configmaps", "spot-feed-config")
        await made.merge("exchangefeeds", "spot", {"spec": {"suspend": True}})

    await running.roused(made.feed, breaks)
    await running.until(lambda: store.of_kind(kinds.FEED)[0].generation == 2)
    if how in ("dropped", "refused", "throttled"):  # Continued where they were.
        await running.until(lambda: not store.of_kind(kinds.CONFIG_MAP))
    await running.roused(made.feed, lambda: made.create("configmaps", made.child("another", x="1")))
    assert running.hearing.alive()[0]


async def test_an_outage_of_the_api_server_is_outlived(start: Start, made: Made, proxy: FaultProxy) -> None:
    await made.both()
    running = await start()
    proxy.outage()
    await made.merge("exchangefeeds", "spot", {"spec": {"suspend": True}})
    failed = proxy.count("watch", "list")
    await running.until(lambda: proxy.count("watch", "list") > failed + 20)
    proxy.restore()
    await running.until(lambda: running.controller.store.of_kind(kinds.FEED)[0].generation == 2)
    await running.roused(made.feed, lambda: made.create("configmaps", made.child(x="1")))


async def test_a_resync_finds_what_no_watch_told(start: Start, made: Made, proxy: FaultProxy) -> None:
    await made.both()
    await made.create("configmaps", made.child("deleted", x="1"))
    await made.create("configmaps", made.child("changed", x="1"))
    running = await start(resync=1.0)
    store = running.controller.store
    # Only the resync sees anything from now on.
    proxy.fail(lambda request: request.verb == "watch", 503, 1_000_000)
    proxy.drop_watches()
    await made.delete("configmaps", "deleted")
    await made.merge("configmaps", "changed", {"data": {"x": "2"}})
    await made.create("configmaps", made.child("new", x="1"))
    await running.until(lambda: {live.name for live in store.of_kind(kinds.CONFIG_MAP)} == {"changed", "new"})
    await running.until(lambda: b'"x":"2"' in store.of_kind(kinds.CONFIG_MAP)[0].body)
    await made.delete("exchangefeeds", "spot")
    await running.until(lambda: not store.of_kind(kinds.FEED))
    await running.until(lambda: running.controller.queue.idle)


async def test_every_object_is_looked_at_again_at_each_resync(start: Start, made: Made) -> None:
    await made.both()
    running = await start(resync=1.0)
    await running.until(lambda: running.ran[made.feed] > 5 and running.ran[made.pipeline] > 5)
    assert writes(running.proxy) == 0


async def test_kinds_that_come_later_are_watched_from_then_on(start: Start, made: Made, api_cluster: Cluster) -> None:
    await made.both()
    running = await start(resync=1.0)
    assert not running.controller.facts.current.pod_monitor
    crds = monitoring_crds()
    try:
        await asyncio.to_thread(api_cluster.apply, *crds)
        await running.until(lambda: running.controller.facts.current.pod_monitor)
        # The API server serves one a moment before the other.
        await running.until(lambda: running.controller.facts.current.prometheus_rule)
        await running.until(lambda: running.proxy.count("watch", resource="podmonitors"))
    finally:
        for crd in crds:
            await asyncio.to_thread(
                api_cluster.kubectl, "delete", "crd", crd["metadata"]["name"], "--wait=true", "--ignore-not-found"
            )
    await running.until(lambda: not running.controller.facts.current.pod_monitor)
    await running.roused(made.feed, lambda: made.create("configmaps", made.child(x="1")))


async def test_the_probe_is_heard(start: Start, made: Made) -> None:
    running = await start()
    probe = asyncio.create_task(Probe(running.client, made.namespace, "probe", 0.2).run())
    other = {"metadata": {"name": "another", "namespace": made.namespace}}
    await made.create("leases", other)  # Of other names none is watched.
    await running.until(lambda: running.probes > 3)
    probe.cancel()

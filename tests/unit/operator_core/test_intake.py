"""What the watches tell becomes keys only where it is news to somebody."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Kind, Manifest
from feedmill_operator.reconcile.intake import Intake
from feedmill_operator.reconcile.queue import Key, WorkQueue
from feedmill_operator.reconcile.store import Store

Virtual = Callable[[Callable[[], Awaitable[Any]]], Any]
FEED, PIPELINE = Key("ExchangeFeed", "ns", "spot"), Key("FeedPipeline", "ns", "main")


class World:
    """An intake, and what its queue's handler was called with."""

    def __init__(self) -> None:
        self.ran: list[Key] = []
        self.leases: list[tuple[str, str]] = []
        self.store: Store[str] = Store(lambda pod: pod["status"].get("phase", ""))
        self.queue = WorkQueue(self._handle, 4)
        self.intake = Intake(self.store, self.queue, lambda *where: self.leases.append(where))
        self.version = 0

    async def _handle(self, key: Key) -> None:
        self.ran.append(key)

    async def __aenter__(self) -> World:
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.queue.run(self.stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await self.task

    async def told(
        self, kind: Kind, change: str | None, obj: Mapping[str, Any], same_version: bool = False
    ) -> list[Key]:
        """Keys that one event leads to, within ten minutes."""
        done = copy.deepcopy(dict(obj))
        if not same_version:
            self.version += 1
            done["metadata"]["resourceVersion"] = str(self.version)
        self.ran.clear()
        self.intake.take(kind, change, done)
        await asyncio.sleep(600)
        return sorted(self.ran)


def custom(kind: Kind, name: str, generation: int = 1, **more: Any) -> Manifest:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "generation": generation}
    spec = {"pipelineRef": {"name": "main"}} if kind == kinds.FEED else {"redis": {"urlSecretRef": {"name": "redis"}}}
    return {"metadata": metadata, "spec": spec, **more}


def child(kind: Kind, name: str = "spot-receiver-0", **more: Any) -> Manifest:
    labels = {names.MANAGED_BY: names.MANAGER, names.FEED: "spot", names.PIPELINE: "main"}
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "generation": 1, "labels": labels}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **more}


def test_a_spec_rouses_the_feed_and_its_pipeline_and_a_status_nobody(virtual: Virtual) -> None:
    async def work() -> None:
        async with World() as world:
            feed = custom(kinds.FEED, "spot")
            assert await world.told(kinds.FEED, "ADDED", feed) == [FEED, PIPELINE]
            feed["status"] = {"data": "Fresh", "conditions": [{"type": "Ready", "status": "True"}]}
            assert await world.told(kinds.FEED, "MODIFIED", feed) == []
            assert await world.told(kinds.FEED, "MODIFIED", custom(kinds.FEED, "spot", 2)) == [FEED, PIPELINE]
            paused = custom(kinds.FEED, "spot", 2)
            paused["metadata"]["annotations"] = {names.PAUSE: "true"}
            assert FEED in await world.told(kinds.FEED, "MODIFIED", paused)
            assert await world.told(kinds.FEED, "DELETED", paused) == [FEED, PIPELINE]
            assert world.store.of_kind(kinds.FEED) == []

    virtual(work)


def test_that_a_feed_was_accepted_is_news_to_its_pipeline_only(virtual: Virtual) -> None:
    async def work() -> None:
        async with World() as world:
            feed = custom(kinds.FEED, "spot")
            await world.told(kinds.FEED, None, feed)
            feed["status"] = {"conditions": [{"type": "Accepted", "status": "True", "observedGeneration": 1}]}
            assert await world.told(kinds.FEED, "MODIFIED", feed) == [PIPELINE]

    virtual(work)


def test_a_pipeline_rouses_its_feeds_only_by_its_spec_and_what_they_work_with(virtual: Virtual) -> None:
    async def work() -> None:
        async with World() as world:
            for name in ("spot", "usdm"):
                await world.told(kinds.FEED, None, custom(kinds.FEED, name))
            stranger = custom(kinds.FEED, "other")
            stranger["spec"]["pipelineRef"]["name"] = "another"
            await world.told(kinds.FEED, None, stranger)
            both = [FEED, FEED._replace(name="usdm")]
            pipeline = custom(kinds.PIPELINE, "main")
            assert await world.told(kinds.PIPELINE, "ADDED", pipeline) == [*both, PIPELINE]
            pipeline["status"] = {"feeds": 2, "lag": "<1s"}
            assert await world.told(kinds.PIPELINE, "MODIFIED", pipeline) == []
            pipeline["status"]["image"] = "services:2"
            assert await world.told(kinds.PIPELINE, "MODIFIED", pipeline) == both

    virtual(work)


def test_a_thousand_feeds_at_once_rouse_their_pipeline_a_few_times_not_a_thousand(virtual: Virtual) -> None:
    async def work() -> None:
        async with World() as world:
            for number in range(1000):
                feed = custom(kinds.FEED, f"feed-{number}")
                feed["metadata"]["resourceVersion"] = str(number + 1)
                world.intake.take(kinds.FEED, "ADDED", feed)
            await asyncio.sleep(600)
            assert world.ran.count(PIPELINE) == 1
            assert len(world.ran) == 1001

    virtual(work)


def test_a_childs_content_and_the_status_that_counts_rouse_its_owner(virtual: Virtual) -> None:
    async def work() -> None:
        async with World() as world:
            deployment = child(kinds.DEPLOYMENT, spec={"replicas": 1})
            assert await world.told(kinds.DEPLOYMENT, "ADDED", deployment) == [FEED]
            deployment["status"] = {"readyReplicas": 1}
            assert await world.told(kinds.DEPLOYMENT, "MODIFIED", deployment) == [FEED]
            config = child(kinds.CONFIG_MAP, "c", data={"x": "1"})
            del config["metadata"]["generation"]
            assert await world.told(kinds.CONFIG_MAP, "ADDED", config) == [FEED]
            assert await world.told(kinds.CONFIG_MAP, "MODIFIED", config) == []  # Another version of the same.
            config["data"] = {"x": "2"}
            assert await world.told(kinds.CONFIG_MAP, "MODIFIED", config) == [FEED]
            assert await world.told(kinds.CONFIG_MAP, "DELETED", config) == [FEED]
            pdb = child(kinds.PDB, "p", status={"currentHealthy": 1})
            await world.told(kinds.PDB, "ADDED", pdb)
            pdb["status"] = {"currentHealthy": 2}
            assert await world.told(kinds.PDB, "MODIFIED", pdb) == []

    virtual(work)


def test_what_the_operator_wrote_itself_is_no_news(virtual: Virtual) -> None:
    async def work() -> None:
        async with World() as world:
            written = child(kinds.CONFIG_MAP, "c", data={"x": "1"})
            written["metadata"]["resourceVersion"] = "7"
            world.store.update(kinds.CONFIG_MAP, written)
            assert await world.told(kinds.CONFIG_MAP, "ADDED", written, same_version=True) == []

    virtual(work)


def test_an_object_whose_labels_were_taken_away_rouses_its_owner(virtual: Virtual) -> None:
    async def work() -> None:
        async with World() as world:
            config = child(kinds.CONFIG_MAP, "c", data={"x": "1"})
            await world.told(kinds.CONFIG_MAP, "ADDED", config)
            config["metadata"]["labels"] = {}
            # By its selector the server tells that as a deletion.
            assert await world.told(kinds.CONFIG_MAP, "DELETED", config) == [FEED]

    virtual(work)


def test_a_pod_rouses_its_owner_by_new_facts_only(virtual: Virtual) -> None:
    async def work() -> None:
        async with World() as world:
            pod = child(kinds.POD, "p", status={"phase": "Pending"})
            assert await world.told(kinds.POD, "ADDED", pod) == [FEED]
            pod["status"]["podIP"] = "10.0.0.1"
            assert await world.told(kinds.POD, "MODIFIED", pod) == []
            pod["status"]["phase"] = "Running"
            assert await world.told(kinds.POD, "MODIFIED", pod) == [FEED]
            assert await world.told(kinds.POD, "DELETED", pod) == [FEED]
            assert await world.told(kinds.POD, "DELETED", pod) == []

    virtual(work)


def test_a_users_secret_rouses_who_names_it_and_its_content_is_not_kept(virtual: Virtual) -> None:
    async def work() -> None:
        async with World() as world:
            await world.told(kinds.PIPELINE, None, custom(kinds.PIPELINE, "main"))
            secret = {"metadata": {"name": "redis", "namespace": "ns", "uid": "s"}, "data": {"url": "cmVkaXM6Ly8="}}
            assert await world.told(kinds.SECRET, "ADDED", secret) == [PIPELINE]
            assert await world.told(kinds.SECRET, "MODIFIED", secret) == [PIPELINE]
            assert world.store.of_kind(kinds.SECRET) == []
            other = {"metadata": {"name": "redi", "namespace": "ns", "uid": "o"}}
            assert await world.told(kinds.SECRET, "ADDED", other) == []
            assert await world.told(kinds.SECRET, "DELETED", secret) == [PIPELINE]

    virtual(work)


def test_the_own_lease_is_told_to_the_probe(virtual: Virtual) -> None:
    async def work() -> None:
        async with World() as world:
            lease = {"metadata": {"name": "feedmill-operator", "namespace": "ops"}}
            assert await world.told(kinds.LEASE, "MODIFIED", lease) == []
            assert world.leases == [("ops", "feedmill-operator")]

    virtual(work)

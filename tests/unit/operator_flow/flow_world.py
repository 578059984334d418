"""An operator at work: the real queue, intake, store, reconcilers and builders; the API server is in memory."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from memory_api import MemoryApi

from feedmill.shared.clock import monotonic
from feedmill_operator import names
from feedmill_operator.config import Options
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import Kind, Manifest
from feedmill_operator.reconcile.account import AccountReconciler
from feedmill_operator.reconcile.answer import read_answer
from feedmill_operator.reconcile.answers import Answers
from feedmill_operator.reconcile.apply import Applier
from feedmill_operator.reconcile.backup import RunReconciler
from feedmill_operator.reconcile.base import Tools
from feedmill_operator.reconcile.catalog import Catalog
from feedmill_operator.reconcile.controller import Controller
from feedmill_operator.reconcile.feed import FeedReconciler
from feedmill_operator.reconcile.pipeline import PipelineReconciler
from feedmill_operator.reconcile.pods import pod_facts
from feedmill_operator.reconcile.queue import Key
from feedmill_operator.reconcile.writer import StatusWriter

IMAGE = "services:1"
FEED, PIPELINE, ACCOUNT = ("ExchangeFeed", "btc"), ("FeedPipeline", "main"), ("ExchangeAccount", "fund")
SERVERS = {"redis": "redis://user:secret-word@cache:6379/0", "postgres": "postgresql://user:secret-word@db/feeds"}
PIPELINE_TEXT = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main, namespace: ns}
spec:
  redis: {urlSecretRef: {name: servers, key: redis}}
  postgres: {urlSecretRef: {name: servers, key: postgres}}
"""
FEED_TEXT = """
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: btc, namespace: ns}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  instruments: {symbols: [BTC-USDT, ETH-USDT]}
  channels: [{name: Trades}, {name: Ticker}]
"""
ACCOUNT_TEXT = """
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeAccount
metadata: {name: fund, namespace: ns}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  credentialsSecretRef: {name: fund-key}
"""
KEYS = {"apiKey": "planted-key", "apiSecret": "planted-secret"}
_KINDS = {kind.kind: kind for kind in (*kinds.CUSTOM, *kinds.MADE)}
_PLACE = ("FeedPipeline", "ns", "main")
_VERBS = ("apply", "create", "replace", "patch", "status", "delete-Background", "delete-Orphan")


class Told:
    """Takes the Events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []
        """(type, reason, message)."""

    def normal(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        self.events.append(("Normal", reason, message))

    def warning(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        self.events.append(("Warning", reason, message))

    def of(self, reason: str) -> list[str]:
        """Messages of one reason, doubles left out (the real sink publishes each once)."""
        return list(dict.fromkeys(message for _, found, message in self.events if found == reason))


class World:
    """``spans``: what opens a span around each reconcile."""

    def __init__(self, **controller: Any) -> None:
        self.api = MemoryApi()
        self.told = Told()
        self.image = IMAGE
        self._controller = controller
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def start(self, answers_clock: Callable[[], float] = monotonic) -> None:
        """A new operator that knows nothing but what it is told: all there is."""
        options = Options(operand_image=self.image)
        api: Any = self.api
        self.controller = Controller(api, options, pod_facts, random_source=random.Random(1), **self._controller)
        store, queue = self.controller.store, self.controller.queue
        self.answers = Answers(queue, clock=answers_clock)
        tools = Tools(
            api=api,
            store=store,
            queue=queue,
            facts=self.controller.facts,
            options=options,
            events=self.told,
            answers=self.answers,
            catalog=Catalog(store),
            applier=Applier(api, store),
            writer=StatusWriter(api, asyncio.get_running_loop().time),
        )
        self.controller.reconcilers = {
            "ExchangeFeed": FeedReconciler(tools),
            "FeedPipeline": PipelineReconciler(tools),
            "ExchangeAccount": AccountReconciler(tools),
            **{kind.kind: RunReconciler(tools) for kind in kinds.RUNS},
        }
        for (kind, _, _), found in self.api.objects.items():
            self._tell(_KINDS[kind], "ADDED", found)
        self.api.tell = self._tell
        self._stop = asyncio.Event()
        self._running = asyncio.create_task(queue.run(self._stop), name="queue")

    async def stop(self) -> None:
        self._stop.set()
        if self._running is not None:
            await self._running

    def _tell(self, kind: Kind, change: str, obj: Manifest) -> None:
        # Secrets of users are not watched unless they ask for it.
        labels = obj["metadata"].get("labels") or {}
        if kind == kinds.SECRET and labels.get(names.WATCH) != "true":
            return
        if kind in kinds.CUSTOM or kind == kinds.SECRET or labels.get(names.MANAGED_BY) == names.MANAGER:
            self.controller.intake.take(kind, change, obj)

    # What users do.

    async def make(self, text: str, **spec: Any) -> None:
        """``spec``: fields to put over those of the manifest."""
        manifest = yaml.safe_load(text)
        manifest["spec"].update(spec)
        await self.api.create(_KINDS[manifest["kind"]], manifest)

    async def secret(self, values: Mapping[str, str] = SERVERS, name: str = "servers") -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "ns"}, "data": data}
        await self.api.create(kinds.SECRET, manifest)

    async def usual(self, **feed: Any) -> None:
        """A pipeline and a feed that are accepted, migrated and rolled out."""
        await self.secret()
        await self.make(PIPELINE_TEXT)
        await self.make(FEED_TEXT, **feed)
        await self.settle()
        await self.migrated()
        await self.rolled_out()

    def edit(self, what: tuple[str, str], change: Callable[[Manifest], object]) -> None:
        self.api.edit(_KINDS[what[0]], what[1], change)

    def annotate(self, what: tuple[str, str], name: str, value: str | None) -> None:
        def change(found: Manifest) -> None:
            annotations = found["metadata"].setdefault("annotations", {})
            annotations.pop(name, None)
            if value is not None:
                annotations[name] = value

        self.edit(what, change)

    # What the cluster does.

    async def migrated(self) -> None:
        """The migration's Job succeeds."""
        (job,) = self.names("Job")
        await self._succeed(job)

    async def migrated_to(self, image: str) -> None:
        """The same of an image's Job where there are several."""
        (job,) = [
            name
            for name in self.names("Job")
            if self.get("Job", name)["spec"]["template"]["spec"]["containers"][0]["image"] == image
        ]
        await self._succeed(job)

    async def _succeed(self, job: str) -> None:
        status = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
        await self.api.patch_status(kinds.JOB, "ns", job, {"status": status})
        await self.settle()

    async def rolled_out(self) -> None:
        """Every Deployment has its pods, and they are ready."""
        for name in self.names("Deployment"):
            found = self.get("Deployment", name)
            count = found["spec"]["replicas"]
            done = [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]
            status = {
                "observedGeneration": found["metadata"]["generation"],
                "replicas": count,
                "updatedReplicas": count,
                "readyReplicas": count,
                "conditions": done,
            }
            await self.api.patch_status(kinds.DEPLOYMENT, "ns", name, {"status": status})
        await self.settle()

    async def says(self, pod: str, component: str, health: Mapping[str, Any]) -> None:
        """A pod of the pipeline is ready, and its ``/health`` reads so."""
        await self.answers_so(await self.runs(pod, component), health)

    async def runs(self, pod: str, component: str) -> str:
        """A pod of the pipeline is ready, and has not been asked yet."""
        labels = {names.PIPELINE: "main", names.COMPONENT: component, names.MANAGED_BY: names.MANAGER}
        metadata = {"name": pod, "namespace": "ns", "uid": pod, "resourceVersion": "1", "labels": labels}
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": ready}
        self.controller.intake.take(kinds.POD, "ADDED", {"metadata": metadata, "status": status})
        await self.settle()
        return pod

    async def answers_so(self, pod: str, health: Mapping[str, Any]) -> None:
        target = self.answers._targets[Key(*_PLACE)][pod]
        self.answers._take(target, read_answer(health))
        await self.settle()

    # What is to be seen.

    async def settle(self, seconds: float = 60.0) -> None:
        """So long by the virtual clock: all that is due meanwhile is done."""
        await asyncio.sleep(seconds)
        for _ in range(100):
            if self.controller.queue.idle:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the queue never comes to rest")

    def get(self, kind: str, name: str) -> Manifest:
        return self.api.objects[kind, "ns", name]

    def names(self, kind: str) -> list[str]:
        return sorted(name for found, _, name in self.api.objects if found == kind)

    def made(self, what: tuple[str, str]) -> list[str]:
        """All that a custom resource owns, as "Kind name"."""
        uid = self.get(*what)["metadata"]["uid"]
        return sorted(
            f"{kind} {name}"
            for (kind, _, name), found in self.api.objects.items()
            if any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences") or ())
        )

    def configured(self, config_map: str) -> list[str]:
        """Which resources a ConfigMap hands to the processes, as "Kind name"."""
        documents = yaml.safe_load_all(self.get("ConfigMap", config_map)["data"]["resources.yaml"])
        return [f"{each['kind']} {each['metadata']['name']}" for each in documents]

    def status(self, what: tuple[str, str]) -> dict[str, Any]:
        return self.get(*what).get("status") or {}

    def conditions(self, what: tuple[str, str]) -> dict[str, str]:
        """Type -> "Status/Reason"."""
        return {
            each["type"]: f"{each['status']}/{each['reason']}" for each in self.status(what).get("conditions") or ()
        }

    def message(self, what: tuple[str, str], kind: str) -> str:
        return next(each["message"] for each in self.status(what)["conditions"] if each["type"] == kind)

    def writes(self) -> list[str]:
        """What was written since the last time, as "verb Kind name"."""
        done = self.api.calls(*_VERBS)
        self.api.asked.clear()
        return done

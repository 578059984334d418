"""One run: feeds are there, the operator starts, all is reconciled; then quiet; then each feed is changed once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from clusterkit import samples
from clusterkit.api import Object
from clusterkit.cluster import Cluster, running
from clusterkit.operator import Operator, prepare
from clusterkit.world import MANAGED

PODS_PER_NODE = 110
WRITES = ("create", "update", "patch", "delete")
TIMEOUT = 600.0
SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "BNB-USDT", "XRP-USDT", "ADA-USDT", "DOGE-USDT", "TRX-USDT")


class Trouble(RuntimeError):
    """A run that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is kept."""

    feeds: int
    pipelines: int
    steady: float
    """Seconds of the quiet time."""


@dataclass(slots=True)
class Asked:
    """Requests of the operator in some time, from the API server's audit log."""

    by_verb: Counter[str] = field(default_factory=Counter)
    """Without its Lease; a server-side apply counts as apply."""
    by_resource: Counter[tuple[str, str]] = field(default_factory=Counter)
    status: Counter[str] = field(default_factory=Counter)
    """Status patches of each feed."""
    lease: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    last_write: float = 0.0
    """Unix time of the last write that is no status."""

    @property
    def writes(self) -> int:
        return sum(number for verb, number in self.by_verb.items() if verb in (*WRITES, "apply"))


@dataclass(slots=True)
class Phase:
    """What happened between two moments."""

    seconds: float
    cpu: float
    """Seconds of the operator's process."""
    rss: float
    """Highest resident set of the operator in it, MiB."""
    asked: Asked


@dataclass(slots=True)
class Measured:
    """All of a run."""

    load: Load
    accepted: float
    """Seconds from the start of the operator's process until each feed is Accepted in its status."""
    applied: float
    """... until the last child was applied."""
    ready: float
    """... until each feed is Ready (its pods too)."""
    start: Phase
    settle: Phase
    steady: Phase
    change: Phase
    """Each feed's list of instruments changed once."""
    changed: float
    """Seconds from the first change until the last one is in its feed's status."""


class Sampler(threading.Thread):
    """Highest resident set since the last ``take``, MiB."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.highest, self.over = process, 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            try:
                self.highest = max(self.highest, self.process.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                return

    def take(self) -> float:
        found, self.highest = self.highest, self.process.memory_info().rss / 2**20
        return found


def asked_since(cluster: Cluster, mark: int) -> Asked:
    found = Asked()
    for event in cluster.audited(mark):
        what = event.get("objectRef") or {}
        verb = event["verb"]
        resource = "/".join(
            part for part in (what.get("resource", event["requestURI"]), what.get("subresource")) if part
        )
        if resource == "leases":
            found.lease += 1
            continue
        if verb == "patch" and "force=true" in event["requestURI"]:
            verb = "apply"
        found.by_verb[verb] += 1
        found.by_resource[verb, resource] += 1
        code = (event.get("responseStatus") or {}).get("code", 0)
        if code >= 400:
            found.refused[code] += 1
        if resource == "exchangefeeds/status":
            found.status[f"{what['namespace']}/{what['name']}"] += 1
        elif verb in (*WRITES, "apply") and resource not in ("events", "feedpipelines/status"):
            stamp = event["stageTimestamp"].replace("Z", "+00:00")
            found.last_write = max(found.last_write, datetime.fromisoformat(stamp).timestamp())
    return found


class Measurer:
    """Cuts the run into phases."""

    def __init__(self, cluster: Cluster, operator: Operator) -> None:
        self.cluster = cluster
        self.process = psutil.Process(operator.pid)
        self.sampler = Sampler(self.process)
        self.sampler.start()
        self.mark, self.since, self.cpu = cluster.audit_mark(), time.monotonic(), 0.0

    def phase(self) -> Phase:
        times = self.process.cpu_times()
        cpu, now = times.user + times.system, time.monotonic()
        found = Phase(now - self.since, cpu - self.cpu, self.sampler.take(), asked_since(self.cluster, self.mark))
        self.mark, self.since, self.cpu = self.cluster.audit_mark(), now, cpu
        return found


class Watcher(threading.Thread):
    """Sees every feed's status the moment it is written."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.feeds: dict[str, Object] = {}
        for item in cluster.api.list("exchangefeeds"):
            self._keep(item)

    def _keep(self, item: Object) -> None:
        meta = item["metadata"]
        conditions = {c["type"]: c["status"] for c in (item.get("status") or {}).get("conditions", [])}
        self.feeds[f"{meta['namespace']}/{meta['name']}"] = {
            "generation": meta["generation"],
            "observed": (item.get("status") or {}).get("observedGeneration", 0),
            **conditions,
        }

    def run(self) -> None:
        while True:
            try:
                for event in self.cluster.api.watch("exchangefeeds", None, 3000):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._keep(event["object"])
            except (OSError, HTTPException, ValueError):
                time.sleep(0.2)  # It begins anew with all there are, or the run has ended.

    def all_are(self, condition: str) -> bool:
        return all(f["observed"] == f["generation"] and f.get(condition) == "True" for f in list(self.feeds.values()))

    def all_seen(self, generation: int) -> bool:
        return all(feed["observed"] == generation for feed in list(self.feeds.values()))


def wait(what: str, condition: Callable[[], bool], since: float, timeout: float = TIMEOUT) -> float:
    """Seconds since ``since`` when it held."""
    while not condition():
        if time.monotonic() - since > timeout:
            raise Trouble(f"{what}: not within {timeout:g} s")
        time.sleep(0.05)
    return time.monotonic() - since


def quiet(cluster: Cluster, seconds: float = 6.0) -> None:
    """Until the operator has written nothing for a while."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        mark = cluster.audit_mark()
        time.sleep(seconds)
        if not asked_since(cluster, mark).writes:
            return
    raise Trouble(f"the operator did not come to rest within {TIMEOUT:g} s")


def populate(cluster: Cluster, load: Load) -> list[tuple[str, str]]:
    """Makes namespaces, pipelines and feeds; gives (namespace, feed) of each."""
    made: list[tuple[str, str]] = []
    for number in range(load.pipelines):
        namespace = cluster.namespace("bench")
        for secret in samples.server_secrets(namespace):
            cluster.api.create("secrets", secret)
        cluster.api.create("feedpipelines", samples.pipeline(namespace=namespace))
        for index in range(number, load.feeds, load.pipelines):
            name = f"feed-{index:04}"
            symbols = [SYMBOLS[(index + step) % len(SYMBOLS)] for step in range(2)]
            cluster.api.create("exchangefeeds", samples.feed(name, namespace, instruments={"symbols": symbols}))
            made.append((namespace, name))
    return made


def run(load: Load, folder: Path, say: Callable[[str], Any]) -> Measured:
    """Raises Trouble and NoCluster."""
    nodes = (2 * load.feeds + 3 * load.pipelines) // PODS_PER_NODE + 2
    with running("kwok", nodes=nodes) as cluster:
        prepare(cluster)
        feeds = populate(cluster, load)
        say(f"{len(feeds)} feeds of {load.pipelines} pipelines wait, {nodes} simulated nodes")
        operator = Operator(cluster, folder)
        operator.start()
        try:
            return _measure(cluster, operator, load, feeds, say)
        finally:
            if operator.alive():
                operator.stop()
            errors = operator.errors()
            if errors:
                say(f"the operator logged {len(errors)} errors; the first: {errors[0]}")


def _measure(
    cluster: Cluster, operator: Operator, load: Load, feeds: Iterable[tuple[str, str]], say: Callable[[str], Any]
) -> Measured:
    started, began = time.monotonic(), time.time()
    measurer = Measurer(cluster, operator)
    watcher = Watcher(cluster)
    watcher.start()
    accepted = wait("each feed Accepted", lambda: watcher.all_are("Accepted"), started)
    say(f"Accepted after {accepted:.1f} s")
    wanted = 2 * load.feeds + load.pipelines

    def applied_all() -> bool:
        return len(cluster.api.list("deployments", None, MANAGED)) >= wanted

    while not applied_all():
        if time.monotonic() - started > TIMEOUT:
            raise Trouble("not all children were applied")
        time.sleep(1.0)
    first = measurer.phase()
    applied = first.asked.last_write - began
    say(f"all children applied after {applied:.1f} s")
    ready = wait("each feed Ready", lambda: watcher.all_are("Ready"), started)
    say(f"Ready after {ready:.1f} s")
    quiet(cluster)
    settle = measurer.phase()
    time.sleep(load.steady)
    steady = measurer.phase()
    say(f"{load.steady:g} s quiet: {steady.asked.writes} writes")
    since = time.monotonic()
    for number, (namespace, name) in enumerate(feeds):
        symbols = [SYMBOLS[(number + step) % len(SYMBOLS)] for step in range(3)]
        cluster.api.merge("exchangefeeds", namespace, name, {"spec": {"instruments": {"symbols": symbols}}})
    changed = wait("each change in its status", lambda: watcher.all_seen(2), since)
    quiet(cluster)
    change = measurer.phase()
    return Measured(load, accepted, applied, ready, first, settle, steady, change, changed)

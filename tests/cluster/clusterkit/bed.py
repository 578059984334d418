"""Feedmill as its users run it: the chart on a real node, the examples applied, exchanges that keep a ledger."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterkit import samples
from clusterkit.api import Object
from clusterkit.cluster import Cluster
from clusterkit.exchange import Exchange, Judgement, judge
from clusterkit.images import Images
from clusterkit.tool import ROOT
from clusterkit.waiting import until
from clusterkit.world import World

NAMESPACE = "feeds"
"""Of the examples."""
FEEDS = {"binance-spot": "binance/Spot", "binance-usdm": "binance/UsdM", "deribit": "deribit/Derivatives"}


def kustomization(folder: Path, exchange: Exchange, image: str) -> Path:
    """The examples for Kubernetes as they are, and what a user would patch for another exchange: its addresses. Small
    volumes and short waits besides, since the tests are about what happens and not about how long it takes."""
    resources = ["namespace.yaml", "managed-pipeline.yaml", "feeds.yaml"]
    for name in resources:
        (folder / name).write_text((ROOT / "examples" / "kubernetes" / name).read_text())
    servers = {
        "redis": {"managed": {"storage": "1Gi", "memory": "256Mi"}, "circuitBreaker": {"resetTimeout": "2s"}},
        "postgres": {"managed": {"storage": "2Gi"}, "circuitBreaker": {"resetTimeout": "2s"}},
    }
    patches = [_patch("FeedPipeline", "main", {"image": image, **servers})]
    for name, venue in FEEDS.items():
        endpoints = {key: exchange.endpoints[venue][key] for key in ("stream", "rest")}
        fewer = {"receiver": {"reconnect": {"maxBackoff": "2s"}}, "distributor": {"gapGrace": "1s"}}
        patches.append(_patch("ExchangeFeed", name, {"exchange": {"endpoints": endpoints}, **fewer}))
    document = {"resources": resources, "patches": patches}
    (folder / "kustomization.yaml").write_text(json.dumps(document))
    return folder


def _patch(kind: str, name: str, spec: Object) -> Object:
    body = {"apiVersion": samples.VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
    return {"target": {"kind": kind, "name": name}, "patch": json.dumps(body)}


@dataclass(slots=True)
class Bed:
    """What runs."""

    cluster: Cluster
    world: World
    exchange: Exchange
    images: Images
    before: Judgement = field(default_factory=Judgement)
    """As it was after the last fault."""
    told: list[str] = field(default_factory=list)
    """A line a fault, for the report."""

    @property
    def namespace(self) -> str:
        return self.world.namespace

    @property
    def all(self) -> tuple[str, ...]:
        return ("fpl/main", *(f"xf/{name}" for name in FEEDS))

    def ready(self, timeout: float = 180.0) -> float:
        """Until all are Ready; the seconds it took."""
        started = time.monotonic()
        try:
            for what in self.all:
                self.world.wait(what, timeout=max(1.0, timeout - (time.monotonic() - started)))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.trouble()}") from None
        return time.monotonic() - started

    def secret(self, name: str, key: str) -> str:
        found = self.cluster.api.need("secrets", self.namespace, name)
        return base64.b64decode(found["data"][key]).decode()

    def pods(self, component: str, feed: str = "") -> list[Object]:
        return [
            pod
            for pod in self.world.pods(component)
            if not feed or pod["metadata"]["labels"].get("feedmill.dev/feed") == feed
        ]

    def pod(self, component: str, feed: str = "") -> Object:
        """The one of it that is ready."""
        return until(lambda: next((pod for pod in self.pods(component, feed) if is_ready(pod)), None), 90,
                     what=f"a ready {component} of {feed or 'the pipeline'}")  # fmt: skip

    def delete(self, *pods: Object) -> None:
        """Until others have taken their place: what that costs would be seen by the next test otherwise."""
        gone = {pod["metadata"]["uid"] for pod in pods}
        places = {place(pod) for pod in pods}
        wanted = Counter(place(pod) for pod in self.world.pods() if is_ready(pod) and place(pod) in places)
        names = [pod["metadata"]["name"] for pod in pods]
        self.cluster.kubectl("delete", "pod", *names, "-n", self.namespace, "--wait=false")

        def replaced() -> bool:
            there = {pod["metadata"]["uid"] for pod in self.cluster.api.list("pods", self.namespace)}
            return not gone & there and Counter(place(pod) for pod in self.world.pods() if is_ready(pod)) >= wanted

        until(replaced, 180, what=f"others in place of {', '.join(names)}")

    def health(self, pod: Object) -> Any:
        """What its process says of itself."""
        address = pod["status"]["podIP"]
        try:
            with urllib.request.urlopen(f"http://{address}:8080/health", timeout=3) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError):
            return None

    def database_url(self) -> str:
        """Of the managed PostgreSQL, by its pod's address."""
        pod = self.pod("postgres")
        url = self.secret("main-postgres", "url")
        head, _, rest = url.rpartition("@")
        _, _, path = rest.partition("/")
        return f"{head}@{pod['status']['podIP']}:5432/{path}"

    def judged(self) -> Judgement:
        return judge(self.exchange.compare(self.database_url()))

    def settled(self, what: str, timeout: float = 240.0) -> Judgement:
        """What a fault cost, once the pipeline has caught up while messages go on: nothing lost before the last one
        stored, little on its way, and then rows stored of every flow that came later. The result is what came since the
        last call. Fails where that is not so within ``timeout``: a pipeline that stands still has not settled."""
        began = time.monotonic()
        first = self.caught_up(what, timeout)
        self.exchange.until_emitted(500)
        # That it was caught up is known by now: a look that comes at a wrong moment is not the last one.
        final = self.caught_up(what, max(60.0, timeout - (time.monotonic() - began)), first)
        last, self.before = final - self.before, final
        self.told.append(f"{what}: {last}")
        print(self.told[-1], flush=True)
        return last

    def caught_up(self, what: str, timeout: float = 240.0, earlier: Judgement | None = None) -> Judgement:
        """Judges until it has, and until rows of every flow are stored that were not there ``earlier``. One look tells
        little: a hole may be seen for a moment before that which fills it, or the gap row that tells of it."""
        deadline, seen, failed = time.monotonic() + timeout, "nothing was judged", ""
        former, now = self.before, self.before
        while True:
            self.exchange.until_emitted(200)
            try:
                now, failed = self.judged(), ""
            except Exception as error:
                failed = f"\nthen {type(error).__name__}: {error}"
            else:
                last = now - former
                still = [name for name, rows in earlier.flows.items() if now.flows[name] <= rows] if earlier else []
                if last.lost <= 0 and last.wrong <= 0 and last.came > 0 and now.behind < 100 and not still:
                    return now
                seen = "\n".join([str(last), *(f"nothing more of {name}" for name in still), *last.notes])
            if time.monotonic() > deadline:
                # The next fault is judged by what comes after it.
                self.before = now
                raise AssertionError(f"{what}: the pipeline has not caught up:\n{seen}{failed}\n{self.trouble()}")

    def trouble(self) -> str:
        """What an engineer would look at first."""
        lines = []
        for pod in self.world.pods():
            name = pod["metadata"]["name"]
            states = [status.get("state") for status in pod["status"].get("containerStatuses", [])]
            if not is_ready(pod):
                lines.append(f"{name}: {pod['status']['phase']} {json.dumps(states)}")
                done = self.cluster.kubectl("logs", name, "-n", self.namespace, "--tail=8", check=False)
                lines.append(done.stdout[-1500:] + done.stderr[-300:])
        return "\n".join(lines)


def place(pod: Object) -> tuple[str, str]:
    """What it is, and of which feed."""
    labels = pod["metadata"]["labels"]
    return labels["app.kubernetes.io/component"], labels.get("feedmill.dev/feed", "")


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

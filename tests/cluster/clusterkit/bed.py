"""Feedmill as its users run it: the chart on a real node, the examples applied, exchanges that keep a ledger."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
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

    def ready(self, timeout: float = 90.0) -> float:
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

    def settled(self, what: str, timeout: float = 120.0) -> Judgement:
        """What a fault cost, once the pipeline has caught up while messages go on: nothing lost before the last one
        stored, and rows stored that were emitted after the fault. The result is what came since the last call."""
        goal = self.exchange.emitted()
        deadline = time.monotonic() + timeout
        last = Judgement()
        while time.monotonic() < deadline:
            self.exchange.until_emitted(200)
            try:
                now = self.judged()
            except Exception as error:
                last.notes = [f"{type(error).__name__}: {error}"]
                continue
            last = now - self.before
            caught_up = now.trades + now.tickers + now.trades_in_gaps + now.tickers_in_gaps > 0
            if not last.lost and not last.wrong and caught_up and now.behind < 100:
                break
        self.exchange.until_emitted(500)
        final = self.judged()
        last, self.before = final - self.before, final
        assert goal
        self.told.append(
            f"{what}: trades +{last.trades}, tickers +{last.tickers}, lost {last.lost_trades} + {last.lost_tickers}, "
            f"doubled {last.doubled}, wrong {last.wrong}, in gaps {last.trades_in_gaps} + {last.tickers_in_gaps}, "
            f"behind {last.behind}"
        )
        print(self.told[-1], flush=True)
        return last

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


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

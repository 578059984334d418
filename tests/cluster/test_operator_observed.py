"""A real Prometheus watches an operator to which everything happens that its alerts tell of: each fires and resolves.

Afterwards no panel of its dashboard is empty. The rules are the chart's; a minute of them is three seconds here.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.dashboards.operator import BOARD

from clusterkit.cluster import OPERATOR_NAMESPACE, Cluster
from clusterkit.operator import Operator
from clusterkit.prometheus import HOW, Prometheus, compressed, installed
from clusterkit.proxy import FaultProxy, writes
from clusterkit.tool import ROOT
from clusterkit.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.skipif(not installed(), reason=HOW)]
FACTOR = 20
NAME = "op-a"
PODS = f'namespace="{OPERATOR_NAMESPACE}", pod=~"op-.+"'
FEEDS = 12
ALWAYS = 1_000_000


def rules() -> list[dict[str, Any]]:
    written = (ROOT / "helm" / "feedmill" / "files" / "alerts.yaml").read_text("utf-8")
    return [compressed(rule, FACTOR) for rule in yaml.safe_load(written.replace("PODS", PODS))]


@pytest.mark.allowed_errors("injected by the test", "no answer", "watch", "Watch", "503", "500", "lease", "Lease")
async def test_its_alerts_fire_and_resolve_and_no_panel_is_empty(
    kwok_cluster: Cluster, namespace: str, proxy: FaultProxy, start_operator: Any, tmp_path: Path
) -> None:
    world = World(kwok_cluster, namespace)
    operator: Operator = await asyncio.to_thread(
        start_operator, name=NAME, server=proxy.url, arguments=("--resync", "10s")
    )
    target = {
        "targets": [f"127.0.0.1:{operator.port}"],
        "labels": {"namespace": OPERATOR_NAMESPACE, "pod": NAME, "instance": NAME},
    }
    scrape = {"job_name": "operator", "static_configs": [target]}
    async with Prometheus(tmp_path / "prometheus", scrape, rules()) as prometheus:
        await asyncio.to_thread(_some_feeds, world)
        await _fails_again_and_again(world, proxy, prometheus)
        await _is_deaf(world, proxy, prometheus)
        await _is_gone(operator, prometheus)
        # Each by itself; where a scrape came late another one may fire besides, for a moment.
        await prometheus.until_resolved(*(rule["alert"] for rule in rules()))
        assert await _empty(prometheus) == []


def _some_feeds(world: World) -> None:
    world.secrets()
    world.pipeline()
    for number in range(FEEDS):
        world.feed(f"spot-{number}")
    world.ready("fpl/main", *(f"xf/spot-{number}" for number in range(FEEDS)), timeout=120)


async def _fails_again_and_again(world: World, proxy: FaultProxy, prometheus: Prometheus) -> None:
    began = time.monotonic()
    fault = proxy.fail(lambda asked: writes(asked) and not asked.resource.startswith("events"), 500, ALWAYS)
    for number in range(FEEDS):
        await asyncio.to_thread(world.patch, f"xf/spot-{number}", {"spec": {"instruments": {"symbols": ["BTC-USDT"]}}})
    await prometheus.until_fires("FeedmillOperatorReconcileErrors", since=began, timeout=240)
    fault.times = fault.done
    await prometheus.until_resolved("FeedmillOperatorReconcileErrors", timeout=240)


async def _is_deaf(world: World, proxy: FaultProxy, prometheus: Prometheus) -> None:
    """What changes meanwhile is found by the next full look."""
    began = time.monotonic()
    fault = proxy.fail(lambda asked: asked.verb == "watch", 503, ALWAYS)
    proxy.drop_watches()
    await asyncio.to_thread(world.patch, "xf/spot-0", {"spec": {"instruments": {"symbols": ["ETH-USDT", "BTC-USDT"]}}})
    await prometheus.until_fires("FeedmillOperatorDeaf", since=began, timeout=300)
    fault.times = fault.done
    await prometheus.until_resolved("FeedmillOperatorDeaf", timeout=120)


async def _is_gone(operator: Operator, prometheus: Prometheus) -> None:
    began = time.monotonic()
    operator.kill()
    await prometheus.until_fires("FeedmillOperatorAbsent", since=began, timeout=120)
    await asyncio.to_thread(lambda: operator.start().ready(240))
    await prometheus.until_resolved("FeedmillOperatorAbsent", timeout=120)


async def _empty(prometheus: Prometheus) -> list[str]:
    """Panels of which no query found anything in the whole run, and metrics that never were."""
    there = await prometheus.metrics()
    found = []
    for row in BOARD.rows:
        for panel in row.panels:
            missing = {
                n for query in panel.queries for n in re.findall(r"feedmill_(?!dev_)\w+", query.expression)
            } - there
            shown = [await _shows(prometheus, query.expression) for query in panel.queries]
            if missing or not all(shown):
                found.append(f"{panel.title}: {[query.expression for query in panel.queries]} {sorted(missing)}")
    return found


async def _shows(prometheus: Prometheus, expression: str) -> bool:
    expression = expression.replace("$__rate_interval", "15s").replace("$namespace", OPERATOR_NAMESPACE)
    series = await prometheus.since(expression)
    return any(not math.isnan(float(value)) for each in series for _, value in each["values"])

"""``/metrics`` in the two forms that are asked for: the old text, and OpenMetrics, which has the exemplars."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client import Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from feedmill.shared.health import Health, HealthServer

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
"""As Prometheus 3 asks."""
seconds = Histogram("feedmill_test_open_metrics_seconds", "Of this test.", buckets=(1, 2))


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = HealthServer(Health("receiver"), "127.0.0.1", 0)
    await server.start()
    yield f"http://127.0.0.1:{server.port}/metrics"
    await server.stop()


async def _ask(url: str, accept: str) -> tuple[str, str]:
    async with aiohttp.ClientSession() as client, client.get(url, headers={"Accept": accept}) as answer:
        assert answer.status == 200
        return answer.headers["Content-Type"], await answer.text()


async def test_prometheus_gets_openmetrics_with_exemplars(url: str) -> None:
    seconds.observe(1.5, {"trace_id": "0af7651916cd43dd8448eb211c80319c"})
    content_type, text = await _ask(url, PROMETHEUS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    (family,) = [found for found in text_string_to_metric_families(text) if found.name == seconds._name]  # type: ignore[no-untyped-call]
    (exemplar,) = [sample.exemplar for sample in family.samples if sample.exemplar is not None]
    assert (exemplar.value, exemplar.labels) == (1.5, {"trace_id": "0af7651916cd43dd8448eb211c80319c"})
    assert "_created" not in text, "a second series of each counter and histogram"


@pytest.mark.parametrize("accept", ["*/*", "text/plain", "text/html, nonsense"])
async def test_others_get_the_old_text_without_them(url: str, accept: str) -> None:
    seconds.observe(1.5, {"trace_id": "0af7651916cd43dd8448eb211c80319c"})
    content_type, text = await _ask(url, accept)
    assert content_type.startswith("text/plain")
    assert "feedmill_test_open_metrics_seconds_count" in text
    assert "trace_id" not in text


@pytest.mark.parametrize("role", ["receiver", "distributor", "processor", "pool"])
def test_every_metric_of_a_service_can_be_told_so(role: str) -> None:
    """Names that OpenMetrics forbids would cost Prometheus the whole page."""
    code = f"""
import feedmill.{role}.main, feedmill.shared.otlp, feedmill.shared.reload
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
names = [family.name for family in text_string_to_metric_families(generate_latest(REGISTRY).decode())]
print(len([name for name in names if name.startswith("feedmill_")]), len(names) - len(set(names)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours, doubled = map(int, done.stdout.split())
    assert ours > 10
    assert doubled == 0

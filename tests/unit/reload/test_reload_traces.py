"""Tracing follows the manifest; where OpenTelemetry is not installed the new one is refused and nothing changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feedmill.resources.collection import Resources
from feedmill.resources.load import load_read, read_files
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.health import Health
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.reload import Origin, Reloader, same_pipeline
from feedmill.shared.service import ServiceContext
from feedmill.shared.tracing import TRACES, Identity, Sampling

PLAIN = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {managed: {}}
  postgres: {managed: {}}
"""
TRACED = PLAIN + '  monitoring: {tracing: {otlpEndpoint: "http://127.0.0.1:1", samplingPercent: 5}}\n'


class Quiet:
    def __getattr__(self, _: str) -> Any:
        return lambda *args, **more: None


class World:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "resources.yaml"
        self.path.write_text(PLAIN)
        read = read_files([self.path])
        key = ("default", "main")
        pipeline = load_read(read).pipelines[key]
        self.applied: list[Resources] = []
        url = RedisUrl.parse("redis://localhost")
        self.context = ServiceContext("receiver", Health("receiver"), url, DatabaseUrl(""), log=Quiet())
        self.context.reconfigure = self._reconfigure
        origin = Origin(
            (self.path,), read, pipeline, lambda resources: same_pipeline(resources, key), None, {}, None, frozenset()
        )
        self.sampling = Sampling(Identity("receiver", "default/main", "x"))
        self.reloader = Reloader(origin, self.context, self.sampling)

    async def _reconfigure(self, resources: Resources) -> None:
        self.applied.append(resources)

    async def write(self, text: str) -> str:
        """The error, where it is refused."""
        self.path.write_text(text)
        await self.reloader.config.look()
        return self.reloader.config.error


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.sampling.close()


async def test_it_comes_changes_and_goes(world: World) -> None:
    assert await world.write(TRACED) == ""
    assert world.sampling.document() == {"on": True, "endpoint": "http://127.0.0.1:1", "samplingPercent": 5}
    sender = world.sampling._sender
    assert await world.write(TRACED.replace("samplingPercent: 5", "samplingPercent: 50")) == ""
    assert world.sampling._sender is sender
    assert await world.write(TRACED.replace("127.0.0.1:1", "127.0.0.1:2")) == ""
    assert world.sampling._sender is not sender
    assert await world.write(PLAIN) == ""
    assert not TRACES.on
    assert len(world.applied) == 4


async def test_without_opentelemetry_the_manifest_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "feedmill.shared.otlp", None)
    said = await world.write(TRACED)
    assert "spec.monitoring.tracing: feedmill.shared.otlp is not installed" in said
    assert world.applied == []
    assert not TRACES.on
    monkeypatch.undo()
    assert await world.write(TRACED + "# and again\n") == ""
    assert TRACES.on

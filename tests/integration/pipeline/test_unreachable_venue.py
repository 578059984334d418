"""A live venue that cannot be reached, and the manifests that go there."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from feedmill.plan import plan
from feedmill.resources.load import load_files

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_loads_and_plans(path: Path) -> None:
    resources = load_files([path], local=True)
    roles = {load.role for load in plan(resources)}
    of_feeds = {"receiver", "distributor"} if resources.feeds else set()
    of_accounts = {"accounts"} if resources.accounts else set()
    specs = [pipeline.spec.notifications for pipeline in resources.pipelines.values()]
    of_pipelines = {"notify"} if any(spec is not None and spec.telegram for spec in specs) else set()
    assert roles == {"processor", "maintenance"} | of_pipelines | of_feeds | of_accounts
    assert of_feeds or of_accounts


@pytest.mark.parametrize(
    ("stream", "host", "cause"),
    [
        # A name that never resolves (RFC 6761), and a port nobody listens on.
        ("wss://stream.binance.invalid:9443", "stream.binance.invalid", "dns"),
        ("ws://127.0.0.1:9", "127.0.0.1", "refused"),
    ],
)
async def test_it_says_where_and_why_keeps_trying_and_stops(
    tmp_path: Path, kit: Any, stream: str, host: str, cause: str
) -> None:
    (example,) = [path for path in EXAMPLES if path.stem == "binance-spot"]
    feed = yaml.safe_load(example.read_text())
    rest = stream.replace("ws", "http", 1).replace("stream.", "api.")
    feed["spec"]["exchange"]["endpoints"] = {"stream": stream, "rest": rest}
    manifest = tmp_path / "feed.yaml"
    manifest.write_text(yaml.safe_dump(feed))
    data = tmp_path / "data"
    process = await kit.feedmill("up", "-f", str(manifest), "--data-dir", str(data), "--api-port", "0")
    assert process.stdout is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(180):  # From the making of PostgreSQL to the last try.
            # A resolver that is slow for a while is told of first, as a timeout.
            while not said or "cannot reach" not in said[-1] or cause not in said[-1].lower().replace("name", "dns"):
                line = await process.stdout.readline()
                assert line, "".join(said)
                said.append(line.decode())
            await retried(data / "logs", 3)
            process.send_signal(signal.SIGINT)
            rest_of_it, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert host in said[-1]
    assert cause in said[-1].lower().replace("name", "dns"), said[-1]
    assert "trying again" in said[-1]
    assert process.returncode == 0, rest_of_it.decode()
    # Told once, not at every try.
    told = [line.strip() for line in [*said, *rest_of_it.decode().splitlines()] if "cannot reach" in line]
    assert len({line.partition("cannot reach")[2] for line in told}) == len(told), told
    assert "stopping in order" in rest_of_it.decode()


async def retried(logs: Path, times: int) -> None:
    """Until the receiver has failed to connect this often."""
    while True:
        (log,) = logs.glob("*receiver*.log")
        failures = [
            record
            for line in log.read_text().rpartition("\n")[0].splitlines()  # The last one may be half written.
            if line.startswith("{") and (record := json.loads(line)).get("event") == "connect.failed"
        ]
        if len(failures) >= times:
            return
        await asyncio.sleep(0.05)

"""A real Prometheus watches a run in which everything goes wrong that alerts tell of.

Each alert fires while it is wrong and resolves once it is mended; afterwards no panel of a dashboard is empty, and
every metric that dashboards and rules use was there. The rules are the operator's; a minute of them is a second here.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults.files import files_below
from faults.proxy import Mode
from faults.world import feed_name, until
from observed_world import QUIET, VENUE, Observed, observed, set_memory
from tools.dashboards.__main__ import BOARDS
from tools.dashboards.panels import Query

from clusterkit.prometheus import HOW, installed
from feedmill_operator.build.monitoring import ALERTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not installed(), reason=HOW),
]
LEARNED = 65 * 5.0
"""Seconds: a receiver looks every five, or somewhat less often, and judges a topic after fifty silences that it saw end
(a look that comes very late sees none)."""


class Run:
    """What was shown so far."""

    def __init__(self, it: Observed) -> None:
        self.it = it
        self.prometheus = it.prometheus
        self.shown: set[str] = set()

    @contextlib.asynccontextmanager
    async def fire(self, *names: str, timeout: float = 120.0) -> AsyncIterator[None]:
        """What is done inside lasts until they have fired; what follows the block must make them resolve."""
        began = time.monotonic()
        yield
        seconds = await self.prometheus.until_fires(*names, timeout=timeout, since=began)
        print(f"{', '.join(names)}: fired after {seconds:.1f} s", flush=True)

    async def resolve(self, *names: str, timeout: float = 120.0) -> None:
        seconds = await self.prometheus.until_resolved(*names, timeout=timeout)
        print(f"{', '.join(names)}: resolved after {seconds:.1f} s", flush=True)
        self.shown |= set(names)


async def processes_hang(run: Run) -> None:
    """A receiver, and all of the other roles."""
    world = run.it.world
    roles = ("distributor", "processor", "accounts", "notify", "backup")
    absent = [
        f"Feedmill{role}Absent"
        for role in ("Receiver", "Distributor", "Processor", "Accounts", "Notifier", "BackupLog")
    ]
    hanging = [run.it.receiver(), *(service for role in roles for service in world.services(role))]
    with run.it.stopped(hanging):
        async with run.fire("FeedmillPodDown", *absent):
            pass
    await run.resolve("FeedmillPodDown", *absent)


async def the_exchange_is_away(run: Run) -> None:
    """For longer than its REST API remembers: what is given up stays a gap."""
    world = run.it.world
    away = ("FeedmillReceiverNotCapturing", "FeedmillAccountsNotListening")
    seen = await world.emitted()
    async with run.fire(*away):
        world.proxies["exchange"].set(Mode.CUT)

    async def forgotten() -> bool:
        return await world.emitted() > seen + 40 * world.setup.history

    await until(forgotten, 120.0, "forgotten by the exchange")
    back = ("FeedmillBackfillGivenUp", "FeedmillGaps")
    async with run.fire(*back):
        world.proxies["exchange"].set(Mode.OPEN)
    await run.resolve(*away, *back)


async def redis_is_away(run: Run) -> None:
    """Until memory and spill are full."""
    redis = run.it.world.proxies["redis"]
    names = ["ReceiverBreakerOpen", "SpillInUse", "SpillFilling", "MemoryNearBound", "Shedding", "ProcessorServerDown"]
    alerts = [f"Feedmill{name}" for name in names]
    async with run.fire(*alerts, timeout=240.0):
        redis.set(Mode.CUT)
    redis.set(Mode.OPEN)
    await run.resolve(*alerts)


async def redis_is_full(run: Run) -> None:
    """Where processors do not free it: distributors add nothing, and receivers hold back."""
    world = run.it.world
    full = ("FeedmillRedisNearlyFull", "FeedmillDistributorLag")
    with run.it.stopped(world.services("processor")):
        async with run.fire(*full):
            await set_memory(world, 0.87)
    await set_memory(world, None)
    await run.resolve(*full)


async def the_exchange_announces_an_end(run: Run) -> None:
    """No alert tells of it: the connection is replaced."""
    series = 'feedmill_receiver_renewals_total{cause="announced"}'
    await run.it.world.fault(VENUE, kind="cut", seconds=30.0)

    async def replaced() -> bool:
        return bool(await run.prometheus.now(series))

    await until(replaced, 120.0, "replaced")


async def frames_are_bad(run: Run) -> None:
    async with run.fire("FeedmillDeadLetters"):
        await run.it.world.fault(VENUE, kind="bad_bytes", count=3)
    await run.resolve("FeedmillDeadLetters")


async def postgres_is_away(run: Run) -> None:
    postgres = run.it.world.proxies["postgres"]
    alerts = ("FeedmillProcessorServerDown", "FeedmillProcessorLag")
    async with run.fire(*alerts, timeout=180.0):
        postgres.set(Mode.CUT)
    postgres.set(Mode.OPEN)
    await run.resolve(*alerts)


async def a_service_dies_again_and_again(run: Run) -> None:
    world = run.it.world
    (service,) = world.services("maintenance")
    series = f'process_start_time_seconds{{pod="{service.name}"}}'

    async def began() -> list[Any]:
        return [each["value"][1] for each in await run.prometheus.now(series)]

    async with run.fire("FeedmillPodRestarting"):
        for _ in range(4):
            before = await began()
            await world.kill(service)

            async def another(before: list[Any] = before) -> bool:
                return await began() not in (before, [])

            await until(another, 120.0, "scraped again")


async def a_configuration_is_wrong(run: Run) -> None:
    manifest = run.it.world.manifest
    right = manifest.read_text("utf-8")
    async with run.fire("FeedmillConfigRefused"):
        manifest.write_text(right.replace("channels: [{name: Trades}", "channels: [{name: Trade}", 1))
    manifest.write_text(right)
    await run.resolve("FeedmillConfigRefused")


async def a_key_is_wrong(run: Run) -> None:
    """From the beginning on."""
    async with run.fire("FeedmillAccountsRefused"):
        pass
    run.it.give_key()
    await run.resolve("FeedmillAccountsRefused")


async def the_chat_is_away(run: Run) -> None:
    async with run.fire("FeedmillNotifyFailing"):
        await run.it.chat.stop()
        await run.it.world.fault(VENUE, kind="bad_bytes", count=3)
    told = len(run.it.chat.texts)
    await run.it.chat.start()
    await run.resolve("FeedmillNotifyFailing")
    await until(lambda: len(run.it.chat.texts) > told, 120.0, "told what happened meanwhile")


async def test_each_alert_fires_and_resolves_and_no_panel_is_empty(tmp_path: Path) -> None:
    async with observed(tmp_path) as it:
        run = Run(it)
        silent = asyncio.create_task(a_topic_falls_silent(run), name="a topic falls silent")
        try:
            await a_key_is_wrong(run)
            await a_service_dies_again_and_again(run)
            await a_configuration_is_wrong(run)
            await the_chat_is_away(run)
            await backups_fail(run)
            await maintenance_stops(run)
            await the_exchange_announces_an_end(run)
            await processes_hang(run)
            await the_exchange_is_away(run)
            await redis_is_away(run)
            await redis_is_full(run)
            await frames_are_bad(run)
            await postgres_is_away(run)
            await silent
            await run.resolve("FeedmillPodRestarting")
        finally:
            silent.cancel()
            await asyncio.gather(silent, return_exceptions=True)
        assert run.shown == {alert.name for alert in ALERTS}
        assert await empty_panels(run) == []


async def a_topic_falls_silent(run: Run) -> None:
    world = run.it.world
    await asyncio.sleep(LEARNED)
    async with run.fire("FeedmillTopicSilent", timeout=400.0):
        await world.fault(QUIET, kind="drop", channel="Ticker", symbol="BTC-PERPETUAL", count=100_000)
    await world.fault(QUIET, kind="clear")
    await run.resolve("FeedmillTopicSilent")


async def backups_fail(run: Run) -> None:
    """The destination is a file, so nothing can be put there; then it is a folder; then what is in it is damaged."""
    it = run.it
    early = ("Failed", "Overdue", "StoreAway", "LogWaits", "LogStopped")
    alerts = ["FeedmillDrillOverdue", *(f"FeedmillBackup{name}" for name in early)]
    async with run.fire(*alerts, timeout=300.0):
        for _ in range(8):
            # As much of its log as a busy hour brings.
            await it.world.rows("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000)), pg_switch_wal()")
        code, _ = await it.command("backup", "run")
        assert code == 2
    it.backups.unlink()
    it.backups.mkdir()

    async def made(kind: str) -> bool:
        code, written = await it.command("backup", "run", "--kind", kind)
        assert code == 0 or "another backup of this database is being made" in written, written
        return code == 0  # Else the schedule's is under way.

    for kind in ("logical", "base"):
        await until(partial(made, kind), 300.0, "backed up")
    # Their names begin with the time; one without a manifest is being made.
    data = max(files_below(it.backups, "*/logical/*/manifest.json")).with_name("data")
    whole = data.read_bytes()
    async with run.fire("FeedmillDrillFailed"):
        data.write_bytes(whole[:-100] + bytes(byte ^ 1 for byte in whole[-100:]))
        code, _ = await it.command("backup", "verify", "--backup", data.parent.name)
        assert code != 0
    data.write_bytes(whole)
    await it.well("backup", "verify", "--backup", data.parent.name)
    await run.resolve("FeedmillDrillFailed", *alerts, timeout=300.0)


async def maintenance_stops(run: Run) -> None:
    """It runs every ten minutes, so by these rules it has stopped for long; then it runs again and again, and finds
    something to be mended."""
    await run.it.world.rows("ALTER TABLE candles SET (autovacuum_enabled = false)")
    async with run.fire("FeedmillMaintenanceFailing", timeout=180.0):
        pass

    async def again() -> None:
        while True:
            await run.it.well("run", "maintenance", "--once")

    running = asyncio.create_task(again())
    try:
        await run.resolve("FeedmillMaintenanceFailing")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def empty_panels(run: Run) -> list[str]:
    """Panels of which a query found nothing in the whole run, and metrics that never were."""
    there = await run.prometheus.metrics()
    found: list[str] = []
    for board in BOARDS:
        if board.name == "operator":
            continue  # Its own test, on an API server.
        for panel, query in board.queries():
            missing = {name for name in re.findall(r"feedmill_(?!dev_)\w+", query.expression) if name not in there}
            if missing:
                found.append(f"{board.name}: {panel.title}: no series {sorted(missing)}")
            elif not await _shows(run, query):
                found.append(f"{board.name}: {panel.title}: {query.expression}")
    return found


async def _shows(run: Run, query: Query) -> bool:
    expression = query.expression.replace("$__rate_interval", "15s")
    for name, value in (("namespace", "default"), ("pipeline", "main"), ("feed", feed_name(VENUE))):
        expression = expression.replace(f"${name}", value)
    series = await run.prometheus.since(expression)
    return any(not math.isnan(float(value)) for each in series for _, value in each["values"])

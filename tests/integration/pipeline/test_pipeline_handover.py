"""Connections and receivers that are replaced, new before old, and replicas that lag or repeat: all of that costs
nothing. Nothing is missing, nothing twice, and there is no gap row at all."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from feedmill.local.notices import is_flowing
from feedmill.local.process import ProcessSpec, ServiceProcess

pytestmark = pytest.mark.slow
VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
ANNOUNCING = VENUES[0]
"""Only Spot says that it is about to end a connection."""
GRACE = "30s"
"""A receiver that this machine holds up for a second is not what is tested; what is missing is lost to the judge."""
Replica = Callable[[str, str], Awaitable[ServiceProcess]]


async def assert_no_gap(bed: Any) -> None:
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    rows = await bed.rows("SELECT id, cause, state, from_seq, to_seq, missing FROM gaps")
    assert rows == [], bed.explain(report)
    for venue in report.venues:
        assert venue.dead_letters == 0
        assert venue.trades.stored == venue.trades.emitted > 0
        assert venue.tickers.stored == venue.tickers.emitted > 0


@pytest.fixture
async def replica(start_bed: Any, kit: Any) -> AsyncIterator[Callable[[Any], Replica]]:
    """``await replica(bed)(venue, name)`` -> one more receiver, as a roll-out starts it; capturing."""
    started: list[ServiceProcess] = []

    def of(bed: Any) -> Replica:
        async def start(venue: str, name: str) -> ServiceProcess:
            feed = bed.names[venue]
            folder: Path = bed.folder / f"{feed}-{name}"
            folder.mkdir()
            command = [
                sys.executable,
                "-m",
                "feedmill.cli.main",
                "run",
                "receiver",
                "--config",
                f"{bed.folder}/feeds.yaml",
            ]
            command += ["--feed", f"default/{feed}", "--shard", "0", "--replica", name, "--port-file", f"{folder}/port"]
            environment = os.environ | {"REDIS_URL": bed.redis.url, "DATABASE_URL": bed.database_url}
            spec = ProcessSpec(
                name=f"{feed}-{name}", command=[*command, "--spill-dir", f"{folder}/spill"], environment=environment,
                folder=Path.cwd(), log_file=bed.folder / "logs" / f"{feed}-{name}.log", port_file=folder / "port",
                role="receiver", grace=20.0,
            )  # fmt: skip
            service = ServiceProcess(spec)
            started.append(service)
            service.start()

            async def capturing() -> bool:
                found = await bed.manager.prober.health([service.port]) if service.port is not None else {}
                sections = ((found.get(service.port) or {}).get("connections") or {}).values()
                return bool(sections) and all(
                    is_flowing(each) and each["active"] == each["topics"] for each in sections
                )

            await kit.until(capturing, timeout=60.0)
            return service

        return start

    yield of
    for service in started:
        await service.stop()


async def test_planned_renewals_cost_nothing_at_any_venue(start_bed: Any, kit: Any) -> None:
    bed = await start_bed(*VENUES, rate=600, grace=GRACE, lifetime="4s")
    before = {venue: await bed.connects(venue) for venue in VENUES}

    async def renewed() -> bool:
        return all([await bed.connects(venue) >= before[venue] + 6 for venue in VENUES])

    await kit.until(renewed, timeout=90.0)
    await assert_no_gap(bed)


async def test_an_announced_end_costs_nothing(start_bed: Any, kit: Any) -> None:
    bed = await start_bed(ANNOUNCING, rate=600, grace=GRACE)

    async def replaced() -> bool:
        return bool((await bed.stats())[ANNOUNCING]["connections"] == 1)

    for _ in range(3):
        before = await bed.connects(ANNOUNCING)
        assert await bed.fault(ANNOUNCING, kind="cut", seconds=60) == 1
        await bed.until_connected(ANNOUNCING, before)
        await kit.until(replaced)  # The old one goes on for a while, and the next fault would hit it, too.
        await bed.until_emitted(900)
    (venue,) = (await bed.stats()).values()
    assert "lifetime" not in venue["closed"], "the receiver was first"
    await assert_no_gap(bed)


async def test_a_roll_out_costs_nothing(start_bed: Any, replica: Any) -> None:
    """The new one captures before the old one is told to end, as a surge of Kubernetes does it."""
    bed = await start_bed(*VENUES, rate=600, grace=GRACE)
    start = replica(bed)
    running = {venue: bed.service("receiver", venue) for venue in VENUES}
    for number in range(3):
        for venue in VENUES:
            new = await start(venue, f"pod-{number}")
            await bed.until_emitted(100)
            await running[venue].stop()
            running[venue] = new
        await bed.until_emitted(500)
    await assert_no_gap(bed)


async def test_a_replica_that_lags_costs_nothing(start_bed: Any) -> None:
    """It is seconds behind, counts for what has no ids, and ends while it is behind."""
    bed = await start_bed(*VENUES, rate=900, grace=GRACE, replicas=2)
    for venue in VENUES:
        assert await bed.fault(venue, kind="slow", count=1, delay=3) == 1
    await bed.until_emitted(3 * 900 * 8)
    for venue in VENUES:
        await bed.fault(venue, kind="clear")
    await assert_no_gap(bed)


async def test_a_replica_that_lags_and_ends_costs_nothing(start_bed: Any) -> None:
    bed = await start_bed(*VENUES, rate=900, grace=GRACE, replicas=2)
    for venue in VENUES:
        assert await bed.fault(venue, kind="slow", count=1, delay=3) == 1
    await bed.until_emitted(3 * 900 * 5)
    for venue in VENUES:
        assert await bed.fault(venue, kind="abort", count=1) == 1
    await bed.until_flowing()
    await bed.until_emitted(3000)
    await assert_no_gap(bed)


async def test_a_replica_that_repeats_costs_nothing(start_bed: Any) -> None:
    bed = await start_bed(*VENUES, rate=600, grace=GRACE, replicas=2)
    for venue in VENUES:
        for channel in ("Trades", "Ticker", "Book"):
            await bed.fault(venue, kind="double", channel=channel, count=100, connections="one")
    await bed.until_emitted(6000)
    await assert_no_gap(bed)

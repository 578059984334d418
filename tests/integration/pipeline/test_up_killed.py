"""``feedmill up`` itself is killed: nothing stays behind, and the next start goes on with what is there."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from feedmill.local.demo.simulation import Simulation, emitted
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.simulator.verify import verify

pytestmark = pytest.mark.slow
VENUE = "binance/Spot"


async def test_kill_9_of_the_manager_and_a_new_start(tmp_path: Path, kit: Any) -> None:
    (tmp_path / "run").mkdir()
    ledger = tmp_path / "ledger"
    arguments = ["--exchange", VENUE, "--ledger", str(ledger), "--rate", "500"]
    simulation = Simulation(tmp_path / "run", tmp_path / "simulator.log", arguments)
    await simulation.start()
    try:
        manifest = tmp_path / "feed.yaml"
        manifest.write_text(kit.manifest(simulation, [VENUE]))
        data = ("--data-dir", str(tmp_path / "data"), "--api-port", "0")

        async def stats() -> dict[str, Any] | None:
            return (await simulation.stats())[VENUE]

        async def until_emitted(count: int) -> None:
            async def reached() -> bool:
                found = await stats()
                return found is not None and emitted(found) >= count

            await kit.until(reached, timeout=120)  # PostgreSQL may have to be made first.

        first = await kit.feedmill("up", "-f", str(manifest), *data)
        await until_emitted(2000)
        first.send_signal(signal.SIGKILL)
        await first.communicate()  # Ends only when no child of it holds its output any more.
        before = await kit.until(stats)
        subscribed = sum(before["subscribes"].values())

        async def connected() -> Any:
            """The second receiver: the first one's connection may still be there, with all its subscriptions."""
            found = await stats()
            all_asked = found and sum(found["subscribes"].values()) >= subscribed + 12
            return found if all_asked and found["connections"] == 1 else None

        second = await kit.feedmill("up", "-f", str(manifest), *data)
        output = asyncio.create_task(kit.ended(second))
        found = await kit.until(connected, timeout=120)
        await until_emitted(emitted(found) + 2000)
        await simulation.end_of_flow()
        second.send_signal(signal.SIGINT)
        text = await output
        assert second.returncode == 0, text
    finally:
        await simulation.stop()
    with EmbeddedPostgres(tmp_path / "data" / "postgres") as server:
        report = await verify(ledger, server.url)
    assert report.ok, report.to_json()
    (venue,) = report.venues
    assert venue.trades.gap_rows > 0
    assert venue.trades.stored > 500

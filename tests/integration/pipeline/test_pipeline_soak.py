"""Ten thousand messages a second for a minute: nothing lost, nothing doubled, memory flat.

``FEEDMILL_SOAK_RATE`` (messages a second, 10000) and ``FEEDMILL_SOAK_SECONDS`` (60) scale it. No speed is asserted:
a simulated exchange that the machine holds up emits less, and what it emitted is what counts.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from typing import Any

import pytest

from feedmill.local.usage import rss_bytes

RATE = float(os.environ.get("FEEDMILL_SOAK_RATE", "10000"))
SECONDS = int(os.environ.get("FEEDMILL_SOAK_SECONDS", "60"))
WARM_UP = 0.25
"""Share of the time before the first third begins: caches, code and buffers come to their size."""
ROUNDS = 4
"""What an allocator keeps of a moment at which the machine was held up comes once; what leaks comes in each round."""


@pytest.mark.slow
@pytest.mark.timeout(900 + 6 * SECONDS)
async def test_soak(start_bed: Any) -> None:
    bed = await start_bed(
        "binance/Spot", rate=RATE, channels=("Trades", "Ticker"), arguments=("--mix", "trades=1,ticker=1,book=0")
    )
    grown: dict[str, float] = {}
    services = {item.name: bed.manager.service(item.name) for item in bed.manager.status().services}
    await asyncio.sleep(SECONDS * WARM_UP)
    for _ in range(ROUNDS):
        grown = await grown_in(services, bed)
        if flat(grown):
            break
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    (venue,) = report.venues
    for flow in (venue.trades, venue.tickers):
        assert flow.emitted == flow.stored > 0
        assert flow.gap_rows == 0
    assert all(service.restarts == 0 for service in services.values())
    print(f"emitted {venue.trades.emitted + venue.tickers.emitted:,} messages")
    assert flat(grown), grown


def flat(grown: dict[str, float]) -> bool:
    return all(abs(change) < 0.05 for change in grown.values())


async def grown_in(services: dict[str, Any], bed: Any) -> dict[str, float]:
    """Of each service: by which part it is larger in the last third of ``SECONDS`` than in the first."""
    sizes: dict[str, list[int]] = {name: [] for name in services}
    for _ in range(2 * SECONDS):
        await asyncio.sleep(0.5)
        for name, service in services.items():
            size = rss_bytes(service.pid)
            assert size is not None, f"{name} is gone\n{bed.trouble()}"
            sizes[name].append(size)
    grown: dict[str, float] = {}
    for name, found in sizes.items():
        third = len(found) // 3
        first, last = statistics.mean(found[:third]), statistics.mean(found[-third:])
        grown[name] = last / first - 1
        print(f"{name}: {first / 2**20:.1f} MiB -> {last / 2**20:.1f} MiB ({grown[name]:+.1%})")
    return grown

"""A steady load for a long time: nothing lost, nothing doubled, no process restarted, and the memory of each flat.

Fails when the memory of a service grows by more than 1 MiB an hour (median slope) after the first ten minutes. A run
that is too short to tell (less than 45 minutes after them) fails when it grew by more than 1 MiB altogether.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from faults.judge import MIB, Measured, Promise, breaches
from faults.slope import Sample, theil_sen
from faults.world import Setup, World, made
from feedmill.local.usage import rss_bytes

EVERY = 5.0
"""Seconds between two samples."""
WARM_UP = 600.0
"""Seconds in which caches, code and buffers come to their size; a sixth of the run where that is shorter."""
LONG_ENOUGH = 45 * 60.0
GROWTH = 1 * MIB
"""Bytes: in an hour, or in all of a shorter run."""
HOUR = 3600.0


@dataclass(slots=True)
class Memory:
    """Samples of one process after the warm-up: (seconds, bytes)."""

    samples: list[Sample] = field(default_factory=list)

    @property
    def hourly(self) -> float:
        """Bytes an hour."""
        return theil_sen(self.samples) * HOUR

    @property
    def peak(self) -> float:
        return max((size for _, size in self.samples), default=0.0)


def most(measured: float) -> float:
    """Bytes an hour that a service may grow by in a run of so many seconds."""
    return GROWTH if measured >= LONG_ENOUGH else GROWTH * HOUR / max(measured, 1.0)


def growing(memory: Mapping[str, Memory], measured: float) -> list[str]:
    """Pure: what grows too fast, in words."""
    limit = most(measured)
    return [
        f"{name} grows by {found.hourly / MIB:+.2f} MiB an hour, at most {limit / MIB:.2f}"
        for name, found in memory.items()
        if found.hourly > limit
    ]


def markdown(memory: Mapping[str, Memory], others: Mapping[str, Memory]) -> list[str]:
    lines = ["| process | first MiB | last MiB | peak MiB | MiB an hour |", "|---|--:|--:|--:|--:|"]
    for name, found in (*memory.items(), *others.items()):
        if found.samples:
            first, last = found.samples[0][1] / MIB, found.samples[-1][1] / MIB
            lines.append(f"| {name} | {first:.1f} | {last:.1f} | {found.peak / MIB:.1f} | {found.hourly / MIB:+.2f} |")
    return lines


async def hold(world: World, seconds: float) -> tuple[dict[str, Memory], dict[str, Memory], float]:
    """Let it flow; (services, servers, seconds after the warm-up)."""
    names = [item.name for item in world.manager.status().services]
    memory, others = {name: Memory() for name in names}, {"redis": Memory(), "postgres": Memory()}
    warm = min(WARM_UP, seconds / 6)
    began = time.monotonic()
    shown = 0.0
    while (passed := time.monotonic() - began) < seconds:
        sizes = {name: rss_bytes(world.manager.service(name).pid) for name in names}
        if passed >= warm:
            for name, size in sizes.items():
                if size is not None:
                    memory[name].samples.append((passed, size))
            for name, server in (("redis", world.redis), ("postgres", world.postgres)):
                size = await asyncio.to_thread(rss_bytes, server.pid, family=True)
                if size is not None:
                    others[name].samples.append((passed, size))
        if passed - shown >= 60.0 or not shown:
            shown = passed
            text = "  ".join(f"{name} {size / MIB:.1f}" for name, size in sizes.items() if size is not None)
            print(f"{passed / 60:6.1f} min  {text}  MiB", flush=True)
        await asyncio.sleep(min(EVERY, seconds - passed))
    return memory, others, seconds - warm


async def soak(options: argparse.Namespace, folder: Path) -> int:
    venues = tuple(options.venue or ("binance/Spot",))
    setup = Setup(rate=options.rate, seed=options.seed, venues=venues)
    async with made(folder, setup) as world:
        await world.catch_up(60.0)
        print(f"{options.rate:g} messages a second for {options.minutes:g} minutes", flush=True)
        memory, others, measured = await hold(world, options.minutes * 60)
        restarts = {name: world.manager.service(name).restarts for name in memory}
        print("comparing with the ledger", flush=True)
        found = Measured("soak", report=await world.settled(300.0))
        found.peak = world.watch.of_roles(world.watch.peak)
    broken = breaches(found, Promise(gap_rows=False)) + growing(memory, measured)
    broken += [f"{name} was restarted {count} times" for name, count in restarts.items() if count]
    print(f"\n{found.total('emitted'):,} trades and quotes emitted, {found.total('stored'):,} stored\n")
    print("\n".join(markdown(memory, others)))
    for text in broken:
        print(f"NOT: {text}")
    print("\n" + ("flat" if not broken else "does NOT hold"))
    return 1 if broken else 0


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description=__doc__)
    parser.add_argument("--rate", type=float, default=5000.0, help="messages a second (5000)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of flow, the warm-up included (60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--venue", action="append", help="default binance/Spot; repeat for more")
    options = parser.parse_args(given)
    with (
        tempfile.TemporaryDirectory(prefix="feedmill-soak-", ignore_cleanup_errors=True) as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop,
    ):
        return loop.run(soak(options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())

"""Latency of a fill from the socket to its commit, idle and under a burst of the market on the same machine.

Each run is a world of its own with both halves in it. The ratio of the 99th percentiles is printed with its goal. The
exit code is 1 when something could not be run or was lost or doubled, never for being slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench import machine, tls
from bench.fills.run import Found, Half, Load, measure
from bench.processes import ROOT, BenchError
from feedmill.local.embedded import EmbeddedError
from feedmill.local.errors import ManagerError

OUT = ROOT / "bench" / "out"
PAGE = ROOT / "docs" / "benchmarks.md"
GOAL = 2.0
BUSY = 0.25
MARKS = ("<!-- bench-fills: begin -->", "<!-- bench-fills: end -->")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fills", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="worlds, one after the other (3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each half (20)")
    parser.add_argument("--rate", type=int, default=10_000, help="the market's messages a second in the burst (10000)")
    parser.add_argument("--accounts", type=int, default=2, help="at each of three venues (2)")
    parser.add_argument("--account-rate", type=float, default=20.0, help="actions a second of a venue's accounts (20)")
    parser.add_argument("--docs", action="store_true", help="also put the table into docs/benchmarks.md")
    return parser.parse_args()


def _row(name: str, half: Half) -> str:
    numbers = (half.p50, half.p99, half.worst, half.venue_p50, half.venue_p99, half.cpu)
    return f"| {name} | {half.fills:,} | " + " | ".join(f"{n:.1f}" for n in numbers) + f" | {half.others:.0%} |"


def markdown(load: Load, runs: list[Found], about: dict[str, str]) -> str:
    lines = [f"{name}: {value}  " for name, value in about.items() if name != "cryptofeed"]
    lines += [
        f"{3 * load.accounts} accounts of three venues, {3 * load.account_rate:g} actions a second; the burst: "
        f"{load.rate:,} trades a second. {sum(run.market for run in runs):,} trades and every fill stored once.",
        "",
        "| | fills | p50 ms | p99 ms | worst ms | p50 from the venue's time | p99 | CPU, ms/s | others' CPU |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for number, run in enumerate(runs, 1):
        lines += [_row(f"{number}: idle", run.idle), _row(f"{number}: burst, p99 {run.ratio:.2f} times", run.burst)]
    middle = statistics.median(run.ratio for run in runs)
    lines += ["", f"p99 under the burst against idle, median of the runs: {middle:.2f} (goal: at most {GOAL:g}): "
              + ("met" if middle <= GOAL else "**not met**")]  # fmt: skip
    return "\n".join(lines) + "\n"


async def run(options: argparse.Namespace) -> int:
    logs = OUT / "logs" / "fills"
    logs.mkdir(parents=True, exist_ok=True)
    busy = machine.busy_share()
    if busy > BUSY:
        print(f"others use {busy:.0%} of the CPU: the numbers will be off", flush=True)
    load = Load(options.seconds, options.rate, options.accounts, options.account_rate)
    runs: list[Found] = []
    failed = ""
    with tempfile.TemporaryDirectory(prefix="feedmill-bench-tls-") as folder:
        certificate = tls.make(Path(folder))
        for number in range(1, options.runs + 1):
            for old in logs.glob("*.log"):
                old.unlink()
            try:
                runs.append(await measure(load, certificate, logs))
            except (BenchError, EmbeddedError, ManagerError, OSError) as error:
                failed = f"run {number}: {error}"
                print(f"failed: {failed}", flush=True)
                continue
            print(_row(f"{number}: idle", runs[-1].idle), _row(f"{number}: burst", runs[-1].burst),
                  f"p99: {runs[-1].ratio:.2f} times", sep="\n", flush=True)  # fmt: skip
    if not runs:
        return 1
    text = markdown(load, runs, machine.describe(None, busy))
    print(f"\n{text}")
    (OUT / "fills.md").write_text(text)
    (OUT / "fills.json").write_text(json.dumps([asdict(found) for found in runs], indent=1) + "\n")
    if options.docs:
        before, begin, rest = PAGE.read_text().partition(MARKS[0])
        _, end, after = rest.partition(MARKS[1])
        PAGE.write_text(f"{before}{begin}\n{text}{end}{after}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(run(arguments())))

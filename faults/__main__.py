"""Every fault of the table, one after the other: what was emitted, stored, lost, doubled, told as missing; how long it
took to catch up, the most memory each kind of service took, and the connections made.

Each has servers, services and simulated exchanges of its own, started from nothing, and is judged by the exchanges'
ledger. The exit code is 1 when a row does not hold. --random does many faults at once, by the seed.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from faults import chaos, table
from faults.catalogue import FAULTS, SHORT, chosen
from faults.judge import Measured
from faults.row import Fault, Scale
from faults.run import run
from faults.world import SYMBOLS, Setup

Row = tuple[Measured, list[str]]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--rate", type=float, default=10_000.0, help="messages a second, all exchanges (10000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="flow before and after each fault (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the length of outages (1)")
    parser.add_argument("--seed", type=int, default=1, help="of the market, of moments, of the random mode (1)")
    parser.add_argument("--venue", action="append", choices=sorted(SYMBOLS), help="default binance/Spot; repeat")
    parser.add_argument("--only", metavar="NAME", action="append", help="one fault, or all that begin so; repeat")
    parser.add_argument("--from", dest="begin", metavar="NAME", help="this fault and all that follow: go on with a run")
    parser.add_argument("--at-once", type=int, default=1, help="faults side by side, each in a world of its own (1)")
    parser.add_argument("--short", action="store_true", help="few faults, little of them: what make test runs")
    parser.add_argument("--random", action="store_true", help="faults in random order, some at once, by --seed")
    parser.add_argument("--accounts", action="store_true", help="the random mode with accounts and what befalls them")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the random mode (10)")
    parser.add_argument("--keep", action="store_true", help="keep every folder, not only of what does not hold")
    parser.add_argument("--list", action="store_true", help="print the faults and end")
    return parser.parse_args(given)


def listed() -> list[str]:
    return [f"{fault.name:<29} {fault.what}" for fault in FAULTS]


class Runner:
    """Runs rows and prints them as they come."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        self.options = options
        self.root = root
        self.rows: list[Row] = []
        self._began = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._kind: table.Table | None = None
        """Of the row that was printed last."""

    def say(self, text: str) -> None:
        """Progress: one line that is written over on a terminal, else a line each."""
        text = f"  {time.monotonic() - self._began:6.0f} s  {text}"
        if self._terminal:
            sys.stdout.write(f"\r\x1b[2K{text}")
            sys.stdout.flush()
        else:
            print(text, flush=True)

    def add(self, found: Measured, broken: list[str], folder: Path) -> None:
        self.rows.append((found, broken))
        if self._terminal:
            sys.stdout.write("\r\x1b[2K")
        kind = table.table_of(found)
        if kind is not self._kind:
            self._kind = kind
            print(kind.line(kind.headings), flush=True)
        print(kind.line(kind.cells(found, broken)), flush=True)
        for text in broken:
            print(f"    NOT: {text}", flush=True)
        if broken:
            for text in (*found.log, *found.trouble):
                print(f"    {text}", flush=True)
        if broken or self.options.keep:
            print(f"    files: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def setup(self) -> Setup:
        venues = tuple(self.options.venue or ("binance/Spot",))
        accounts = 2 if self.options.random and self.options.accounts else 0
        return Setup(rate=self.options.rate, seed=self.options.seed, venues=venues, accounts=accounts)

    async def faults(self, wanted: Sequence[Fault]) -> None:
        scale = Scale(self.options.scale, self.options.rate)
        places = asyncio.Semaphore(self.options.at_once)

        async def one(number: int, fault: Fault) -> None:
            head = f"[{number}/{len(wanted)}] {fault.name} ({fault.what})"
            folder = self.root / fault.name
            async with places:
                found, broken = await run(
                    fault, self.setup, scale, self.options.seconds, folder, lambda text: self.say(f"{head}: {text}")
                )
            self.add(found, broken, folder)

        async with asyncio.TaskGroup() as group:
            for number, fault in enumerate(wanted, 1):
                group.create_task(one(number, fault))
        order = [fault.name for fault in wanted]
        self.rows.sort(key=lambda row: order.index(row[0].name))

    async def chaos(self) -> None:
        options = self.options
        steps = chaos.schedule(options.seed, options.minutes * 60, accounts=options.accounts)
        print(f"{len(steps)} faults in {options.minutes:g} minutes, seed {options.seed}", flush=True)
        folder = self.root / f"random-{options.seed}"
        found, broken = await chaos.run(steps, self.setup, folder, self.say)
        self.add(found, broken, folder)


def command(options: argparse.Namespace) -> str:
    """How to do it again."""
    words = ["make faults"]
    words += [f"RATE={options.rate:g}", f"SECONDS={options.seconds:g}", f"SEED={options.seed}"]
    more = [f"--only {name}" for name in options.only or ()]
    more += [f"--venue {name}" for name in options.venue or ()]
    more += [f"--from {options.begin}"] if options.begin else []
    more += [f"--at-once {options.at_once}"] if options.at_once != 1 and not options.short else []
    more += [f"--scale {options.scale:g}"] if options.scale != 1 else []
    more += ["--short"] if options.short else []
    more += [f"--random --minutes {options.minutes:g}"] if options.random else []
    more += ["--accounts"] if options.random and options.accounts else []
    return " ".join([*words, *([f'ARGS="{" ".join(more)}"'] if more else [])])


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    if options.list:
        print("\n".join(listed()))
        return 0
    if options.short:
        options.rate, options.seconds, options.scale = min(options.rate, 1000.0), 1.0, min(options.scale, 0.2)
        options.at_once = len(SHORT)
    wanted = chosen(options.only or (list(SHORT) if options.short else None), options.begin)
    root = Path(tempfile.mkdtemp(prefix="feedmill-faults-"))
    runner = Runner(options, root)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(runner.chaos() if options.random else runner.faults(wanted))
    print(f"\n`{command(options)}`:\n")
    print("\n".join(table.markdown(runner.rows)))
    kept = any(root.iterdir())
    if not kept:
        root.rmdir()
    failed = [found.name for found, broken in runner.rows if broken]
    print(f"\n{table.totals([found for found, _ in runner.rows])}")
    print(
        f"{len(runner.rows) - len(failed)} of {len(runner.rows)} hold"
        + (f"; not: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

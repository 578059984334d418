"""Feedmill and cryptofeed 2.5.0, case by case, over the same loopback exchange; one table at the end."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from bench import cryptofeed_venv, machine, report, tls
from bench.feedmill_run import Feedmill
from bench.goals import CASES, Case, cryptofeed_load, loads
from bench.processes import ROOT, BenchError
from bench.run import Load, Measured, measure
from bench.systems import Cryptofeed, System
from bench.tls import Certificate
from feedmill.local.embedded import EmbeddedError

OUT = ROOT / "bench" / "out"
PAGE = ROOT / "docs" / "benchmarks.md"
BUSY = 0.25


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the messages and 3 s: for a first look")
    parser.add_argument("--only", metavar="NAME", action="append", help="cases whose name begins so (repeat for more)")
    parser.add_argument("--seconds", type=float, help="length of each half of a paced run (default 10; quick 3)")
    parser.add_argument("--system", choices=["both", "feedmill", "cryptofeed"], default="both")
    parser.add_argument("--profile", action="store_true", help="py-spy beside each service of Feedmill (spoils CPU)")
    parser.add_argument("--docs", action="store_true", help="also put the tables into docs/benchmarks.md")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    return parser.parse_args()


def chosen(only: list[str] | None) -> list[Case]:
    """Cases by prefix; raises SystemExit with the names when one fits none."""
    for prefix in only or []:
        if not any(case.name.startswith(prefix) for case in CASES):
            raise SystemExit(f"--only {prefix}: no case begins so; there are {', '.join(case.name for case in CASES)}")
    return [case for case in CASES if not only or any(case.name.startswith(prefix) for prefix in only)]


class Bench:
    """Runs what is asked once each and remembers it (cryptofeed's runs serve several cases)."""

    def __init__(
        self, console: Console, logs: Path, certificate: Certificate, python: Path | None, options: argparse.Namespace
    ) -> None:
        self.console = console
        self.logs = logs
        self.certificate = certificate
        self.python = python
        self.which = options.system
        self.profile = bool(options.profile)
        self.runs: dict[str, Measured] = {}
        self.failed: dict[str, str] = {}

    async def run(self, name: str, system: System, load: Load, *, profile: bool = False) -> Measured | str:
        if name in self.runs:
            return self.runs[name]
        if name in self.failed:
            return self.failed[name]
        started = time.monotonic()
        folder = self.logs / name.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.runs[name] = await measure(system, load, self.certificate, folder, profile=profile)
        except (BenchError, EmbeddedError, OSError) as error:
            self.failed[name] = f"failed: {error}"
            self.console.print(f"[red]{name}: {error}[/]", highlight=False)
            return "failed"
        self.console.print(f"{name}: {load}, {time.monotonic() - started:.0f} s", highlight=False)
        return self.runs[name]

    async def feedmill(self, case: Case, load: Load) -> Measured | str:
        if self.which == "cryptofeed":
            return report.NO_VALUE
        return await self.run(f"feedmill/{case.name}", Feedmill(case.stage, case.mode), load, profile=self.profile)

    async def cryptofeed(self, case: Case, load: Load) -> Measured | str:
        if self.which == "feedmill":
            return report.NO_VALUE
        if self.python is None:
            return cryptofeed_venv.NEEDS
        name = f"cryptofeed/{case.backend}-{cryptofeed_load(case.load)}"
        return await self.run(name, Cryptofeed(self.python, case.backend), load)


async def run(options: argparse.Namespace, console: Console) -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    logs = OUT / "logs"
    cases = chosen(options.only)
    python = cryptofeed_venv.ensure(OUT / "pip.log") if options.system != "feedmill" else None
    busy = machine.busy_share()
    if busy > BUSY:
        console.print(f"[yellow]others use {busy:.0%} of the CPU: the numbers will be off[/]")
    seconds = options.seconds or (3.0 if options.quick else 10.0)
    by_name = loads(seconds, quick=options.quick)
    made: list[report.Row] = []
    with tempfile.TemporaryDirectory(prefix="feedmill-bench-tls-") as folder:
        bench = Bench(console, logs, tls.make(Path(folder)), python, options)
        for case in cases:
            theirs = await bench.cryptofeed(case, by_name[cryptofeed_load(case.load)])
            ours = await bench.feedmill(case, by_name[case.load])
            made += report.rows(case, ours, theirs)
    about = machine.describe(python, busy)
    console.print(report.table(made))
    tables = report.markdown(made, bench.runs, about)
    (OUT / "bench.md").write_text(tables)
    if options.docs:
        PAGE.write_text(report.into_page(PAGE.read_text(), tables))
    document = {
        "machine": about,
        "rows": [dataclasses.asdict(row) for row in made],
        "runs": {name: dataclasses.asdict(found) for name, found in bench.runs.items()},
        "failed": bench.failed,
    }
    (OUT / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    console.print("written: bench/out/bench.md, bench/out/bench.json; repeat one case with python -m bench --only CASE")
    return 1 if bench.failed else 0


def main() -> None:
    options = arguments()
    console = Console(width=max(Console().width, 140))
    if options.list:
        for case in CASES:
            console.print(f"{case.name}: {case.work}; {case.load}, {case.mode}", highlight=False)
        return
    sys.exit(asyncio.run(run(options, console)))


if __name__ == "__main__":
    main()

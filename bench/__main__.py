"""Feedmill and cryptofeed, case by case, over the same loopback exchange; one table at the end.

The exit code is 1 when something could not be run or a message was lost or doubled, never for being slow.
"""

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
from bench.cryptofeed_venv import Peer
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
FRESH = 60.0
"""Seconds after which cryptofeed is run again rather than compared with: machines change their pace."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases and messages, 2 s: for a first look")
    parser.add_argument("--only", metavar="NAME", action="append", help="one case, or all whose name begins so; repeat")
    parser.add_argument("--seconds", type=float, help="length of each half of a paced run (default 8; quick 2)")
    parser.add_argument("--system", choices=["both", "feedmill", "cryptofeed"], default="both")
    parser.add_argument("--profile", action="store_true", help="py-spy beside each service of Feedmill (spoils CPU)")
    parser.add_argument("--docs", action="store_true", help="also put the tables into docs/benchmarks.md")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    return parser.parse_args()


def chosen(only: list[str] | None, *, quick: bool = False) -> list[Case]:
    """Cases by name or prefix; raises SystemExit with the names when one fits none."""
    if not only:
        return [case for case in CASES if case.quick or not quick]
    names = {case.name for case in CASES}
    wanted: set[str] = set()
    for prefix in only:
        found = {prefix} if prefix in names else {name for name in names if name.startswith(prefix)}
        if not found:
            raise SystemExit(f"--only {prefix}: no case begins so; there are {', '.join(case.name for case in CASES)}")
        wanted |= found
    return [case for case in CASES if case.name in wanted]


class Bench:
    """Runs one case after the other and keeps what each run found."""

    def __init__(
        self, console: Console, logs: Path, certificate: Certificate, peer: Peer | None, options: argparse.Namespace
    ) -> None:
        self.console = console
        self.logs = logs
        self.certificate = certificate
        self.peer = peer
        self.ours = options.system != "cryptofeed"
        self.profile = bool(options.profile)
        self.runs: dict[str, Measured] = {}
        self.failed: dict[str, str] = {}
        self._peers: dict[str, tuple[Measured | str, float]] = {}
        """Last run of cryptofeed under a load, and when it ended."""

    async def run(self, name: str, system: System, load: Load, *, profile: bool = False) -> Measured | str:
        started = time.monotonic()
        folder = self.logs / name.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.log"):
            old.unlink()
        try:
            self.runs[name] = await measure(system, load, self.certificate, folder, profile=profile)
        except (BenchError, EmbeddedError, OSError) as error:
            self.failed[name] = str(error)
            self.console.print(f"[red]{name} failed:[/] {error}", highlight=False, markup=True)
            return "failed"
        self.console.print(f"{name}: {load}, {time.monotonic() - started:.0f} s", highlight=False)
        return self.runs[name]

    async def feedmill(self, case: Case, load: Load) -> Measured | str:
        if not self.ours:
            return report.NO_VALUE
        return await self.run(f"feedmill/{case.name}", Feedmill(case.stage, case.mode), load, profile=self.profile)

    async def cryptofeed(self, case: Case, load: Load) -> Measured | str:
        """Its numbers under the same load, not older than a minute."""
        if self.peer is None or not case.backend:
            return report.NO_VALUE
        if self.peer.python is None:
            return self.peer.why
        name = f"cryptofeed/{case.backend}-{cryptofeed_load(case.load)}"
        known, ended = self._peers.get(name, (None, 0.0))
        if known is not None and (isinstance(known, str) or time.monotonic() - ended <= FRESH):
            return known
        label = name if known is None else f"{name} again, before {case.name}"
        found = await self.run(label, Cryptofeed(self.peer.python, case.backend), load)
        self._peers[name] = found, time.monotonic()
        return found


async def run(options: argparse.Namespace, console: Console) -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    cases = chosen(options.only, quick=options.quick)
    peer = cryptofeed_venv.ensure(OUT / "pip.log") if options.system != "feedmill" else None
    if peer is not None and peer.why:
        console.print(f"[yellow]cryptofeed: {peer.why}{'' if peer.failed else f'; {peer.version} is measured'}[/]")
    busy = machine.busy_share()
    if busy > BUSY:
        console.print(f"[yellow]others use {busy:.0%} of the CPU: the numbers will be off[/]")
    seconds = options.seconds or (2.0 if options.quick else 8.0)
    by_name = loads(seconds, quick=options.quick)
    made: list[report.Row] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="feedmill-bench-tls-") as folder:
        bench = Bench(console, OUT / "logs", tls.make(Path(folder)), peer, options)
        for case in cases:
            theirs = await bench.cryptofeed(case, by_name[cryptofeed_load(case.load)])
            ours = await bench.feedmill(case, by_name[case.load])
            made += report.rows(case, ours, theirs)
    about = machine.describe(peer, busy)
    about["measured in"] = f"{time.monotonic() - started:.0f} s, {'quick' if options.quick else 'in full'}"
    title = peer.title if peer is not None else "cryptofeed"
    console.print(report.table(made, title))
    console.print(report.verdicts(made))
    tables = report.markdown(made, bench.runs, about, title)
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
    console.print("written: bench/out/bench.md, bench/out/bench.json; logs of every process: bench/out/logs")
    for name, why in bench.failed.items():
        console.print(f"[red]failed:[/] {name}: {why.splitlines()[0]}", highlight=False)
    return 1 if bench.failed or (peer is not None and peer.failed) else 0


def main() -> None:
    options = arguments()
    console = Console(width=max(Console().width, 140))
    if options.list:
        for case in CASES:
            quick = "" if case.quick else " (not in --quick)"
            console.print(f"{case.name}: {case.work}; {case.load}, {case.mode}{quick}", highlight=False)
        return
    sys.exit(asyncio.run(run(options, console)))


if __name__ == "__main__":
    main()

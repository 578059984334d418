"""What tracing costs: the same load with the services of before, with tracing off, and with it on.

The runs of a round follow each other, so that a machine that changes its pace changes it for all; of the rounds the
least CPU counts, since nothing makes a program take less than it needs. ``--before``: ``services/src`` of a checkout
without traces. The exit code is 1 when something could not be run or a message was lost or doubled, never for being
slow.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import machine, tls
from bench.feedmill_run import Feedmill
from bench.processes import ROOT, BenchError
from bench.run import Load, Measured, measure

OUT = ROOT / "bench" / "out" / "traces"
SHARES = (1, 100)
"""Percent of the batches."""


class Collector:
    """Takes spans and forgets them: it runs in this process, whose CPU nobody counts."""

    def __init__(self) -> None:
        self.bytes = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner.bytes += len(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True, slots=True)
class Way:
    """One of the columns."""

    name: str
    monitoring: str = ""
    sources: Path | None = None


def ways(collector: str, before: Path | None) -> list[Way]:
    made = [Way("before", sources=before)] if before is not None else []
    made.append(Way("off"))
    for share in SHARES:
        made.append(Way(f"{share} %", f'{{tracing: {{otlpEndpoint: "{collector}", samplingPercent: {share}}}}}'))
    return made


def least(runs: Sequence[Measured], read: str) -> float | None:
    found = [run.services_cpu if read == "cpu" else getattr(run, read) for run in runs]
    return min((each for each in found if each is not None), default=None)


async def run(options: argparse.Namespace, console: Console) -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    loads = {"Latency": Load(10_000, seconds=options.seconds), "Throughput": Load(0, count=options.count)}
    if options.only:
        loads = {options.only: loads[options.only]}
    collector = Collector()
    found: dict[tuple[str, str], list[Measured]] = {}
    failed = False
    console.print(f"others use {machine.busy_share():.0%} of the CPU")
    with tempfile.TemporaryDirectory(prefix="feedmill-bench-tls-") as folder:
        certificate = tls.make(Path(folder))
        for round_ in range(options.rounds):
            for mode, load in loads.items():
                columns = ways(collector.url, options.before)
                for way in columns if round_ % 2 == 0 else columns[::-1]:
                    system = Feedmill("rows", mode, monitoring=way.monitoring, sources=way.sources)
                    logs = OUT / f"{mode}-{way.name.replace(' ', '')}"
                    logs.mkdir(exist_ok=True)
                    try:
                        measured = await measure(system, load, certificate, logs)
                    except (BenchError, OSError, ZeroDivisionError) as error:  # The last: the machine had no time.
                        console.print(f"[red]{mode} {way.name} failed:[/] {error}")
                        failed = True
                        continue
                    found.setdefault((mode, way.name), []).append(measured)
                    console.print(f"round {round_ + 1}: {mode} {way.name}: {measured.services_cpu:.2f} us/message")
    collector.stop()
    order = [way.name for way in ways("", options.before)]
    table = Table("load", "mode", "traces", "services' CPU, us/message", "p50, ms", "p99, ms", "RSS, MB")
    for (mode, name), runs in sorted(found.items(), key=lambda item: (item[0][0], order.index(item[0][1]))):
        rss = min(max(each.rss_end[role] for role in each.cpu) for each in runs)
        numbers = [f"{value:.3g}" if value is not None else "-" for value in (least(runs, r) for r in READ)]
        table.add_row(str(loads[mode]), mode, name, *numbers, f"{rss:.1f}")
    console.print(table)
    console.print(f"the collector took {collector.bytes / 1e6:.1f} MB")
    return int(failed)


READ = ("cpu", "p50", "p99")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.traces", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each half of a paced run")
    parser.add_argument("--count", type=int, default=400_000, help="messages of a blast")
    parser.add_argument("--only", choices=["Latency", "Throughput"], help="paced in that mode, or blasted in the other")
    parser.add_argument("--before", type=Path, help="services/src of a checkout without traces, to compare with")
    options = parser.parse_args()
    if options.before is not None and not (options.before / "feedmill").is_dir():
        parser.error(f"--before {options.before}: there is no feedmill/ in it; give the services/src of a checkout")
    return asyncio.run(run(options, Console()))


if __name__ == "__main__":
    sys.exit(main())

"""A pool of two account receivers and many Binance accounts of the simulator; a table at the end.

The exit code is 1 when it could not be run, an account does not agree with the ledger, or the exchange refused a
request for its weight; never for being slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console

from bench import machine
from bench.accounts import report
from bench.accounts.run import Load, Trouble, run

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "bench" / "out"
PAGE = ROOT / "docs" / "benchmarks.md"
ABOUT = ("CPU", "memory", "system", "CPU used by others when the run began")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.accounts", description=__doc__)
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=5.0, help="actions a second of all accounts together")
    parser.add_argument("--symbols", default="", help="more instruments of the exchange, comma-separated")
    parser.add_argument("--docs", action="store_true", help="also put the table into docs/benchmarks.md")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench-accounts: stopped"))  # The servers are to be ended too.
    console = Console(highlight=False, soft_wrap=True)
    busy = machine.busy_share()
    load = Load(options.accounts, options.rate, options.symbols)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="bench-accounts-") as folder,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            found = runner.run(run(load, Path(folder), lambda text: console.print(text, markup=False)))
    except Trouble as error:
        console.print(f"bench-accounts: {error}", style="red", markup=False)
        return 1
    told = machine.describe(None, busy)
    about = {name: told[name] for name in ABOUT}
    console.print(report.table(found))
    for name, value in about.items():
        console.print(f"{name}: {value}", markup=False)
    OUT.mkdir(parents=True, exist_ok=True)
    text = report.markdown(found, about)
    (OUT / "accounts.md").write_text(text)
    (OUT / "accounts.json").write_text(json.dumps(found.plain(), indent=1) + "\n")
    if options.docs:
        PAGE.write_text(report.into_page(PAGE.read_text(), text))
    return 0 if found.accounts.ok and not found.refused else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""The operator and many ExchangeFeeds on a real API server with simulated nodes; a table at the end.

The exit code is 1 when something could not be run or was not reconciled, never for being slow.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))

from bench import machine  # noqa: E402
from bench.operator import report  # noqa: E402
from bench.operator.run import Load, Trouble, run  # noqa: E402
from clusterkit.tool import NoCluster  # noqa: E402

OUT = ROOT / "bench" / "out"
PAGE = ROOT / "docs" / "benchmarks.md"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.operator", description=__doc__)
    parser.add_argument("--feeds", type=int, default=1000)
    parser.add_argument("--pipelines", type=int, default=10, help="the feeds are spread over them, one namespace each")
    parser.add_argument("--steady", type=float, default=60.0, metavar="SECONDS", help="length of the quiet time")
    parser.add_argument("--docs", action="store_true", help="also put the table into docs/benchmarks.md")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench-operator: stopped"))  # The cluster is to be ended too.
    console = Console(highlight=False, soft_wrap=True)
    busy = machine.busy_share()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-operator-") as folder:
            load = Load(options.feeds, options.pipelines, options.steady)
            found = run(load, Path(folder), console.print)
    except (NoCluster, Trouble) as error:
        console.print(f"bench-operator: {error}", style="red", markup=False)
        return 1
    about = {
        name: value
        for name, value in machine.describe(None, busy).items()
        if name in ("CPU", "memory", "system", "CPU used by others when the run began")
    }
    console.print(report.table(found))
    for name, value in about.items():
        console.print(f"{name}: {value}")
    OUT.mkdir(parents=True, exist_ok=True)
    text = report.markdown(found, about)
    (OUT / "operator.md").write_text(text)
    (OUT / "operator.json").write_text(json.dumps(report.plain(found), indent=1) + "\n")
    if options.docs:
        PAGE.write_text(report.into_page(PAGE.read_text(), text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

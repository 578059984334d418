"""``feedmill verify``: compare a simulator's ledger with the database."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from feedmill.cli.common import DATA_DIR, DataDir
from feedmill.cli.query import database
from feedmill.local.embedded import EmbeddedError
from feedmill.shared.config import ConfigError
from feedmill.shared.log import redact
from feedmill.simulator.report import Report
from feedmill.simulator.verify import VerifyError
from feedmill.simulator.verify import verify as compare

_PAUSE = 1.0


def verify(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="The folder that feedmill simulate --ledger wrote.")],
    data_dir: DataDir = DATA_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Compare again for up to this many seconds until all is there (0 = once)."
        ),
    ] = 0.0,
) -> None:
    """Compare everything a simulator emitted with what the database holds; exit code 0 when equal, 1 when not,
    2 when it could not be compared.

    The database is that of --data-dir, running or not, or the one of DATABASE_URL. Stop the simulator's flow first
    (curl -X POST http://127.0.0.1:PORT/_sim/stop, or end it), then let the pipeline catch up, or use --wait. Counts:
    LOST is emitted, not stored and in no gap row; IN GAPS is covered by a gap row; DOUBLED is stored twice; PHANTOM was
    never emitted.
    """
    try:
        with database(data_dir) as (url, _):
            report = asyncio.run(_until_ok(ledger, url, wait))
    except (ConfigError, EmbeddedError, VerifyError, FileNotFoundError) as error:
        typer.echo(f"feedmill verify: {redact(str(error))}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(report.to_json())
    else:
        console = Console(highlight=False)
        for line in report.lines():
            console.print(line, soft_wrap=True)
        console.print()
        for venue in report.venues:
            for note in venue.notes:
                console.print(f"{venue.venue}: {note}", markup=False, soft_wrap=True)
            if venue.causes:
                causes = ", ".join(f"{cause} {count}" for cause, count in venue.causes.items())
                console.print(f"{venue.venue}: gap rows: {causes}", markup=False, soft_wrap=True)
    raise typer.Exit(0 if report.ok else 1)


async def _until_ok(ledger: Path, database_url: str, wait: float) -> Report:
    deadline = time.monotonic() + wait
    while True:
        report = await compare(ledger, database_url)
        if report.ok or time.monotonic() + _PAUSE > deadline:
            return report
        await asyncio.sleep(_PAUSE)

"""``feedmill demo``: the whole pipeline on simulated exchanges, checked at the end."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from feedmill.cli.common import FAILED, command, fail, folder, is_terminal, told
from feedmill.cli.up import own_log
from feedmill.local.demo.account_figures import Watch
from feedmill.local.demo.account_view import panel, plain_lines
from feedmill.local.demo.run import Demo, Settings, fresh_folder
from feedmill.local.view import Display, LiveDisplay, PlainDisplay

DEMO_DIR = Path(".feedmill/demo")


@told
def demo(
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=3600, metavar="SECONDS", help="How long messages flow.")
    ] = 20.0,
    rate: Annotated[
        float, typer.Option("--rate", min=1, metavar="NUMBER", help="Messages a second, of all exchanges together.")
    ] = 1500.0,
    recordings: Annotated[
        Path | None,
        typer.Option(
            "--recordings", metavar="DIR", help="Replay recorded frames of this folder instead, without accounts."
        ),
    ] = None,
    speed: Annotated[
        float, typer.Option("--speed", min=0, metavar="FACTOR", help="Of the replay: 1 = as recorded, 10 = faster.")
    ] = 1.0,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", "-d", metavar="DIR", help="Folder of the demonstration; made anew each time.")
    ] = DEMO_DIR,
    backup: Annotated[
        bool,
        typer.Option(
            "--backup", help="Back the database up continuously, into --data-dir, to be restored to any moment."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON; progress goes to stderr.")] = False,
    is_plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of the live view.")] = False,
) -> None:
    """Show the whole pipeline, without internet: three simulated exchanges (Binance Spot, Binance USD-M, Deribit; real
    servers with the real protocols), receivers, Redis, distributors, PostgreSQL; and two accounts, at Binance Spot and
    Deribit, with orders, fills and balances. The simulator writes down everything it emits; at the end that is compared
    with the database, row by row.

    Takes less than a minute. The data stays in --data-dir for a look. Exit code: 0 all is stored once, 1 not so.

    \b
    feedmill demo
    feedmill demo --seconds 60 --rate 5000
    feedmill demo --recordings ../recordings
    feedmill demo --json | jq .ok
    """
    home = folder(data_dir)
    if recordings is not None and not recordings.is_dir():
        fail(f"--recordings {recordings}: there is no such folder", 2)
    fresh_folder(home)
    watch = Watch()
    display: Display
    if is_terminal() and not is_plain and not as_json:
        display = LiveDisplay(title="feedmill demo", hint="Ctrl-C ends it", more=lambda: panel(watch.seen))
    else:
        stream = sys.stderr if as_json else sys.stdout
        display = PlainDisplay(stream, every=5.0, more=lambda: plain_lines(watch.seen))
    own_log(home / "logs")
    run = Demo(Settings(home, seconds, rate, recordings, speed, backup), watch, display)
    asyncio.run(run.run())
    if run.result is None:
        fail("the demonstration was ended before its comparison", 130 if run.outcome.interrupted else FAILED)
    if as_json:
        typer.echo(json.dumps(run.result.as_dict(), indent=2))
    else:
        _show(run, data_dir)
    raise typer.Exit(0 if run.result.ok else FAILED)


def _show(run: Demo, data_dir: Path) -> None:
    from rich.console import Console

    from feedmill.local.demo.result import table, words

    assert run.result is not None
    console = Console(highlight=False)
    console.print()
    for row in table(run.result):
        console.print(row, soft_wrap=True)
    console.print()
    for line in words(run.result):
        console.print(line, markup=False, soft_wrap=True)
    for line in hints(data_dir, accounts=bool(run.accounts), backup=run.settings.backup):
        console.print(line, markup=False, soft_wrap=True)


def hints(data_dir: Path, *, accounts: bool, backup: bool = False) -> list[str]:
    """How to look at what is there now."""
    where = f"--data-dir {data_dir}"
    call = command()
    per_symbol = "select symbol, count(*), min(price), max(price) from trades join instruments on id = instrument_id"
    return [
        "",
        "Look at it:",
        f'  {call} query {where} "{per_symbol} group by symbol"',
        f'  {call} query {where} "select * from candles order by open_time desc limit 5"',  # noqa: S608 (shown, not run)
        *([f"  {call} orders {where} --open    (or fills, balances, accounts list)"] if accounts else []),
        f"  {call} psql {where}",
        *(_backup_hints(call, data_dir, where) if backup else []),
        f"The manifest it ran: {data_dir}/demo.yaml   Logs: {data_dir}/logs",
    ]


def _backup_hints(call: str, data_dir: Path, where: str) -> list[str]:
    of = f"-c {data_dir}/demo.yaml --secrets-dir {data_dir}/secrets"
    return [
        "Lose the database and have it back, as of the last moment or (--to TIME) any other:",
        f"  {call} backup list {of}",
        f"  rm -r {data_dir}/postgres",
        f"  {call} backup restore {of} {where}",
    ]

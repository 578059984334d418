"""``feedmill import``: data that other programs kept in sqlite and pickle files."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.accounts.audit import Who
from feedmill.accounts.keyring import KeyFile
from feedmill.cli.common import DATA_DIR, DataDir, fail, told
from feedmill.cli.options import Output, Shape
from feedmill.cli.query import Manifests, PipelineName, SecretsFolder
from feedmill.cli.where import Where
from feedmill.importing import ImportRefused, sources
from feedmill.importing.load import Done, Loader
from feedmill.importing.mapping import Mapping, parse
from feedmill.importing.reading import Checked, Plan, check, plan
from feedmill.importing.secrets import Moved, move
from feedmill.importing.shapes import CREDENTIALS
from feedmill.importing.spool import Spool
from feedmill.shared.config import read_text

if TYPE_CHECKING:
    import asyncpg
    from rich.progress import Progress

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Move in: orders, fills, balances, candles and API secrets that other programs kept in files.

First see what would come, then let it come. Nothing is stored unless every row of the file can be read.

\b
  feedmill import sqlite bot.db --account main --exchange binance --market Spot --dry-run
  feedmill import sqlite bot.db --account main --exchange binance --market Spot
  feedmill import pickle state.pkl --mapping mapping.yaml

Tables and columns are known by their usual names (trades, orders, ohlc_1m, balances, api_keys; price, qty, amount,
ts, ...); members of a JSON column (data, info, raw, ...) count as columns. For other names write a mapping:

\b
  account: main                      where rows do not say
  exchange: binance
  market: Spot
  tables:
    my_deals:
      target: fills                  fills, orders, balances, candles, credentials or ignore
      fields: {trade_id: deal_no, price: px}      our field: their column
      values: {symbol: BTC-USDT}                  the same in every row

Times are seconds, ms, us or ns since 1970 (by their size) or ISO text, UTC unless it says otherwise. A float becomes
the shortest decimal text that gives the same float again: 0.1 is 0.1. A pickle may hold plain data only; one that
asks for any other class is refused before anything of it runs.

Rows are known by their natural keys, so a run that was broken off goes on where it was, and a second one changes
nothing. At the end each row of the file has been looked for in the database; counts and checksums of both sides are
shown. Exit codes: 0 equal, 1 rows differ from what was there (which is left), 2 the file, the mapping or an option is
wrong.""",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file. It is only read.", show_default=False)]
MappingFile = Annotated[
    Path | None, typer.Option("--mapping", "-m", metavar="FILE", help="Names of tables and columns (YAML).")
]
Default = Annotated[str | None, typer.Option(metavar="NAME", help="Where rows and mapping do not say.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read and check everything, show it, store nothing.")]
Kek = Annotated[
    Path | None,
    typer.Option(
        "--kek-file", metavar="FILE", envvar="FEEDMILL_KEK_FILE", help="Key-encryption keys, where secrets come along."
    ),
]


@dataclass(frozen=True, slots=True)
class _Job:
    """What is wanted of one file."""

    file: Path
    mapping: Mapping
    kek_file: Path | None
    dry_run: bool
    output: Output
    where: Where


def _mapping(file: Path | None, account: str | None, exchange: str | None, market: str | None) -> Mapping:
    found = parse(read_text(file.expanduser().resolve(), "--mapping"), str(file)) if file is not None else Mapping()
    given = {"account": account, "exchange": exchange, "market": market}
    return replace(found, defaults=found.defaults | {name: text for name, text in given.items() if text is not None})


@told
def sqlite(
    file: File,
    mapping: MappingFile = None,
    account: Default = None,
    exchange: Default = None,
    market: Default = None,
    dry_run: DryRun = False,
    kek_file: Kek = None,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Import tables of a sqlite file. feedmill import --help says how names are found.

    \b
    feedmill import sqlite bot.db --account main --exchange binance --market Spot --dry-run
    """
    where = Where(data_dir, config, pipeline, secrets_dir)
    job = _Job(file, _mapping(mapping, account, exchange, market), kek_file, dry_run, output, where)
    _import(job, sources.sqlite(file))


@told
def pickle(
    file: File,
    mapping: MappingFile = None,
    account: Default = None,
    exchange: Default = None,
    market: Default = None,
    dry_run: DryRun = False,
    kek_file: Kek = None,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Import plain data of a pickle file: a dict of tables, or one table named as the file.

    A table is a list of dicts, or a dict of dicts, whose keys are the column _key. feedmill import --help says more.

    \b
    feedmill import pickle trades.pkl --account main --exchange binance --market Spot --dry-run
    """
    where = Where(data_dir, config, pipeline, secrets_dir)
    job = _Job(file, _mapping(mapping, account, exchange, market), kek_file, dry_run, output, where)
    _import(job, sources.pickle(file, job.mapping))


def _import(job: _Job, parts: list[sources.Part]) -> None:
    plans: list[Plan] = []
    left: list[str] = []
    for part in parts:
        target = job.mapping.target(part.name)
        if target is None:
            left.append(part.name)
        else:
            plans.append(plan(part, target, job.mapping))
    missing = sorted(set(job.mapping.tables) - {part.name for part in parts})
    if missing:
        raise ImportRefused(f"the mapping names {', '.join(missing)}: {job.file.name} has {', '.join(_names(parts))}")
    if not plans:
        raise ImportRefused(
            f"{job.file.name}: no table is known by its name ({', '.join(_names(parts))}): write a mapping with targets"
        )
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(_progress())
        # Secrets are never written to a file, not even to one without a name.
        spools = {
            each.part.name: stack.enter_context(Spool())
            for each in plans
            if each.target is not CREDENTIALS and not job.dry_run
        }
        checked: dict[str, Checked] = {}
        for each in plans:
            bar = _bar(progress, f"reading {each.part.name}", each.part.count())
            checked[each.part.name] = check(each, spools.get(each.part.name), bar)
        if job.dry_run:
            progress.stop()
            _tell_plan(job, plans, checked, left)
            return
        ring = None
        if any(each.target is CREDENTIALS for each in plans):
            if job.kek_file is None:
                raise ImportRefused(
                    "secrets come along: give --kek-file (feedmill accounts --help), or ignore the table"
                )
            ring = KeyFile(job.kek_file, "--kek-file").ring()
        digest = _sha256(job.file)

        async def work(connection: asyncpg.Connection) -> tuple[dict[str, Done], Moved]:
            # No statement of a load is hurried; a broken connection ends it.
            loader, moved = Loader(connection, digest, job.mapping, Who.here()), Moved()
            rows = [each for each in plans if each.target is not CREDENTIALS]
            # All that may still be refused, as one: secrets, accounts and names of instruments.
            async with connection.transaction():
                for each in plans:
                    if each.target is CREDENTIALS:
                        assert ring is not None
                        moved = await move(connection, ring, each.rows(), Who.here())
                await loader.prepare((each, checked[each.part.name]) for each in rows)
            done: dict[str, Done] = {}
            for each in rows:
                name = each.part.name
                total = checked[name].rows
                # What was finished is compared anew: the database may have changed since.
                finished = (await loader.position(name)).rows >= total
                bar = _bar(progress, f"storing {name}", total)
                done[name] = await loader.load(each, checked[name], spools[name], bar, again=finished)
            return done, moved

        done, moved = job.where.run("feedmill-import", work)
    _tell_done(job, plans, done, moved, left)


def _names(parts: list[sources.Part]) -> list[str]:
    return [part.name for part in parts] or ["no table"]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _bar(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    task = progress.add_task(what, total=total)
    return lambda done: progress.update(task, completed=done)


def _tell_plan(job: _Job, plans: list[Plan], checked: dict[str, Checked], left: list[str]) -> None:
    tables: list[dict[str, Any]] = []
    for each in plans:
        found = checked[each.part.name]
        secret = each.target is CREDENTIALS
        first = {name: "(secret)" if secret and name.startswith("api") else text for name, text in found.first.items()}
        tables.append(
            {
                "table": each.part.name,
                "target": each.target.name,
                "rows": found.rows,
                "fields": each.sources(),
                "first": {name: text for name, text in first.items() if text is not None},
            }
        )
    if job.output is Output.JSON:
        typer.echo(json.dumps({"dryRun": True, "tables": tables, "notImported": left}, indent=2))
        return
    for table in tables:
        typer.echo(f"{table['table']}: {table['rows']} rows would become {table['target']}")
        for name, source in table["fields"].items():
            typer.echo(f"  {name:<16} from {source:<20} first: {table['first'].get(name, '-')}")
    for name in left:
        typer.echo(f"{name}: not known, not imported")
    typer.echo("nothing was stored (--dry-run)")


def _tell_done(job: _Job, plans: list[Plan], done: dict[str, Done], moved: Moved, left: list[str]) -> None:
    targets = {each.part.name: each.target.name for each in plans}
    equal = all(found.equal for found in done.values()) and not moved.differing
    if job.output is Output.JSON:
        tables = [
            {
                "table": name,
                "target": targets[name],
                "rows": found.rows,
                "inserted": found.inserted,
                "differing": found.differing,
                "fileChecksum": f"{found.file_checksum % 2**64:016x}",
                "storedChecksum": f"{found.stored_checksum % 2**64:016x}",
                "equal": found.equal,
            }
            for name, found in done.items()
        ]
        secrets = {"stored": moved.stored, "equal": moved.equal, "differing": moved.differing}
        typer.echo(json.dumps({"equal": equal, "tables": tables, "secrets": secrets, "notImported": left}, indent=2))
    else:
        for name, found in done.items():
            typer.echo(
                f"{name}: {found.rows} rows as {targets[name]}, {found.inserted} new, "
                f"{found.rows - found.inserted - found.differing} there already, {found.differing} differing; checksum "
                f"{found.file_checksum % 2**64:016x} (file) {found.stored_checksum % 2**64:016x} (database)"
            )
        for text, names in (("stored", moved.stored), ("there already", moved.equal), ("differ", moved.differing)):
            if names:
                typer.echo(f"secrets {text}: {', '.join(names)}")
        for name in left:
            typer.echo(f"{name}: not known, not imported")
    if not equal:
        fail("rows or secrets differ from what was there, which was left as it is")


app.command("sqlite", short_help="Import tables of a sqlite file.")(sqlite)
app.command("pickle", short_help="Import plain data of a pickle file.")(pickle)

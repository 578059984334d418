"""``feedmill query`` and ``feedmill psql``: look at the stored data."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from feedmill.cli.common import DATA_DIR, DataDir, fail, folder, is_terminal, plain, told
from feedmill.cli.manifests import one_pipeline
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.local.embedded.binaries import postgres_bin
from feedmill.local.embedded.errors import DataDirInUse
from feedmill.local.embedded.files import DirLock, listens, password, remembered_port
from feedmill.shared.config import check_database_url, read_setting
from feedmill.shared.libpq import libpq


class QueryError(RuntimeError):
    """The database refused the statement."""


class Format(StrEnum):
    AUTO = "auto"
    TABLE = "table"
    CSV = "csv"
    JSON = "json"


Manifests = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Manifests: ask the PostgreSQL that a pipeline in them names (as in a pod; with --secrets-dir).",
        show_default=False,
    ),
]
PipelineName = Annotated[
    str | None,
    typer.Option(
        "--pipeline", metavar="NAMESPACE/NAME", help="Which pipeline of --config.", show_default="the only one"
    ),
]
SecretsFolder = Annotated[
    Path | None, typer.Option("--secrets-dir", metavar="DIR", help="Folder of Secrets (SECRET/KEY), for --config.")
]


def pipeline_database(config: list[Path], pipeline: str | None, secrets_dir: Path | None) -> str:
    """The URL that a pipeline's processes use: a secret. Raises ResourceError, ConfigError."""
    from feedmill.resources.load import load_files
    from feedmill.shared.config import resolve_urls

    found = one_pipeline(load_files(config, local=True), pipeline)
    return resolve_urls(found, os.environ, secrets_dir)[1]


@contextlib.contextmanager
def database(data_dir: Path) -> Iterator[tuple[str, EmbeddedPostgres | None]]:
    """(URL, embedded server or None): DATABASE_URL, else the folder's PostgreSQL, started for the time if it must be.

    Raises EmbeddedError.
    """
    given = read_setting(os.environ, "DATABASE_URL")
    if given is not None:
        yield check_database_url(given.get_secret_value()), None
        return
    home = folder(data_dir) / "postgres"
    server = EmbeddedPostgres(home)
    if not (home / "pgdata").is_dir():
        fail(
            f"{data_dir} holds no data: run feedmill up or feedmill demo first, name another folder with --data-dir "
            "(the demo's is .feedmill/demo), or set DATABASE_URL",
            2,
        )
    port = remembered_port(home) or 0
    # A running feedmill up has it: use that server. Else whoever has it may be a question as short as this one: wait.
    attached = port != 0 and DirLock.is_held(folder(data_dir)) and listens(port)
    if not attached:
        try:
            server.start()
        except DataDirInUse:
            attached, port = True, remembered_port(home) or 0
    if attached:
        server.attach(port, password(home))
        yield server.url, server
        return
    try:
        yield server.url, server
    finally:
        server.stop()


@told
def query(
    sql: Annotated[str, typer.Argument(help="The statement. - reads it from standard input.", metavar="SQL")],
    data_dir: DataDir = DATA_DIR,
    output: Annotated[
        Format, typer.Option("--format", "-o", help="auto: a table on a terminal, else csv.")
    ] = Format.AUTO,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="NUMBER", help="Rows shown in a table.")] = 200,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Seconds a statement may take.")
    ] = 60.0,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Ask the stored data in SQL. Read only: nothing can be changed.

    Works while feedmill up runs and while it does not (then PostgreSQL is started for the time of the question).
    With DATABASE_URL set, that database is asked; with --config that of a pipeline.

    \b
    feedmill query "select symbol, count(*) from trades join instruments i on i.id = instrument_id group by 1"
    feedmill query "select * from gaps order by detected_ns desc limit 20"
    feedmill query --data-dir .feedmill/demo "select * from candles where complete limit 10"
    feedmill query -o csv "select * from tickers" > tickers.csv
    """
    text = sys.stdin.read() if sql == "-" else sql
    shape = output if output is not Format.AUTO else (Format.TABLE if is_terminal() else Format.CSV)
    if config:
        asyncio.run(show(pipeline_database(config, pipeline, secrets_dir), text, shape, limit, timeout))
        return
    with database(data_dir) as (url, _):
        asyncio.run(show(url, text, shape, limit, timeout))


async def show(
    url: str,
    sql: str,
    shape: Format,
    limit: int,
    timeout: float,
    arguments: Sequence[Any] = (),
    *,
    tight: Sequence[str] = (),
) -> None:
    """Print what a statement answers; it may change nothing. ``tight``: columns of a table that give way where the
    terminal is narrow, the first one first; a row is a line then. Raises QueryError.
    """
    from feedmill.shared import postgres

    try:
        connection = await postgres.connect(url, name="feedmill-query", command_timeout=timeout)
    except postgres.RETRYABLE as error:
        raise QueryError(f"the database cannot be reached: {postgres.describe(error)}") from error
    try:
        async with connection.transaction(readonly=True):
            statement = await connection.prepare(sql)
            columns = [attribute.name for attribute in statement.get_attributes()]
            if not columns:
                await statement.fetch()
                typer.echo(statement.get_statusmsg())
                return
            writer = _Writer(columns, shape, limit, tight)
            async for row in statement.cursor(*arguments, prefetch=1000):
                if not writer.add(list(row.values())):
                    break
            writer.end()
    except BrokenPipeError:
        raise  # Whoever read our output has enough.
    except postgres.RETRYABLE as error:
        hint = getattr(error, "hint", None)
        said = postgres.describe(error) if not isinstance(error, TimeoutError) else f"no answer within {timeout:g} s"
        raise QueryError(f"{said}{f' (hint: {hint})' if hint else ''}") from error
    finally:
        await postgres.close(connection)


class _Writer:
    """Rows out as they come (csv, json lines in one array), or gathered for a table."""

    def __init__(self, columns: list[str], shape: Format, limit: int, tight: Sequence[str]) -> None:
        self.tight = tight
        self.columns = columns
        self.shape = shape
        self.limit = limit
        self.count = 0
        self.rows: list[list[Any]] = []
        self._csv = csv.writer(sys.stdout, lineterminator="\n")
        if shape is Format.CSV:
            self._csv.writerow(columns)
        elif shape is Format.JSON:
            sys.stdout.write("[")

    def add(self, values: list[Any]) -> bool:
        """False when no more are wanted."""
        self.count += 1
        found = [plain(value) for value in values]
        if self.shape is Format.CSV:
            self._csv.writerow([json.dumps(item) if isinstance(item, (list, dict)) else item for item in found])
        elif self.shape is Format.JSON:
            sys.stdout.write(("" if self.count == 1 else ",") + "\n")
            sys.stdout.write(json.dumps(dict(zip(self.columns, found, strict=True))))
        elif self.count > self.limit:
            return False
        else:
            self.rows.append(found)
        return True

    def end(self) -> None:
        if self.shape is Format.JSON:
            sys.stdout.write("\n]\n")
        elif self.shape is Format.TABLE:
            self._table()
        sys.stdout.flush()

    def _table(self) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        console = Console(highlight=False)
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        numeric = [all(row[at] is None or _is_number(row[at]) for row in self.rows) for at in range(len(self.columns))]
        rows = [["" if item is None else _cell(item) for item in row] for row in self.rows]
        widths = self._widths(rows, console.width) if self.tight else {}
        for column, is_number in zip(self.columns, numeric, strict=True):
            table.add_column(
                column,
                justify="right" if is_number else "left",
                overflow="ellipsis" if self.tight else "fold",
                no_wrap=bool(self.tight),
                width=widths.get(column),
            )
        for row in rows:
            table.add_row(*row)
        console.print(table, markup=False)
        more = f" (the first {self.limit} are shown: --limit shows more)" if self.count > self.limit else ""
        console.print(f"{len(self.rows)} row{'' if len(self.rows) == 1 else 's'}{more}", style="dim")

    def _widths(self, rows: list[list[Any]], room: int) -> dict[str, int]:
        """Of each column, so that a row fits."""
        widths = {
            column: max(len(column), *(len(row[at]) for row in rows), 0) for at, column in enumerate(self.columns)
        }
        over = sum(widths.values()) + 2 * (len(widths) - 1) - room
        for column in self.tight:
            if over > 0 and column in widths:
                cut = min(over, max(0, widths[column] - _LEAST))
                widths[column] -= cut
                over -= cut
        return widths


_LEAST = 8
"""Characters to which a column may be cut."""


def _cell(item: Any) -> Any:
    from rich.text import Text

    return Text(json.dumps(item) if isinstance(item, (list, dict)) else str(item))


def _is_number(item: Any) -> bool:
    if isinstance(item, bool):
        return False
    return isinstance(item, (int, float)) or (isinstance(item, str) and item.replace(".", "", 1).lstrip("-").isdigit())


@told
def psql(
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed on to psql (after --).", metavar="ARGS")] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Open psql on the stored data, with the right server, user and database.

    Works while feedmill up runs and while it does not. psql may change data: for a look, feedmill query is safer.

    \b
    feedmill psql
    feedmill psql --data-dir .feedmill/demo
    feedmill psql -- -c '\\d trades'
    """
    with database(data_dir) as (url, server):
        if server is not None:
            program = str(server.bin_dir / "psql")
            environment = server.client_environment()
            command = [program, *(arguments or [])]
        else:
            program = shutil.which("psql") or str(postgres_bin() / "psql")
            environment = dict(os.environ) | libpq(url)
            command = [program, *(arguments or [])]
        # Ctrl-C belongs to psql (it cancels a statement); it must not end us and the server with it.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = subprocess.call(command, env=environment)  # noqa: S603 (the user's own psql and arguments)
        finally:
            signal.signal(signal.SIGINT, before)
    raise typer.Exit(code)

"""``feedmill migrate``: bring the database's schema to a revision. ``upgrade`` does the same from code."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from pathlib import Path
from typing import Annotated

import typer
from alembic import command as alembic
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

import feedmill
from feedmill.resources.types import Duration
from feedmill.shared import postgres
from feedmill.shared.config import ConfigError, check_database_url, read_setting
from feedmill.shared.log import redact

_ONE_AT_A_TIME = threading.Lock()
"""alembic keeps its context in module globals: two migrations in one process would mix up their databases."""


class MigrateError(RuntimeError):
    """The schema could not be brought to the revision; the message names the remedy."""


class DatabaseAway(MigrateError):
    """It cannot be reached, or is just starting: may be otherwise in a moment."""


def migrations_dir() -> Path:
    """Where the migrations are: in the installed package, or at the root of the source tree."""
    package = Path(feedmill.__file__).resolve().parent
    # Of a source tree: services/src/feedmill, and migrations/ beside services/.
    for folder in (package / "migrations", *(root / "migrations" for root in package.parents[2:3])):
        if (folder / "env.py").is_file():
            return folder
    raise MigrateError(f"no migrations beside {package}: install feedmill from a wheel, or run from its source tree")


def _config(database_url: str = "", *, output: io.StringIO | None = None, restoring: bool = False) -> Config:
    config = Config(stdout=output or io.StringIO(), output_buffer=output)
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    config.attributes["restoring"] = restoring
    return config


def revisions() -> list[str]:
    """All revisions, oldest first."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def migrate_sync(database_url: str, *, to: str = "head", down: bool = False, restoring: bool = False) -> None:
    """Run alembic here. Not for a thread with a running event loop: see :func:`upgrade`. ``restoring``: the caller is
    the restore that others wait for.

    Raises MigrateError when the revision is not known or the database refuses.
    """
    config = _config(database_url, restoring=restoring)
    try:
        with _ONE_AT_A_TIME:
            if down:
                alembic.downgrade(config, to)
            else:
                alembic.upgrade(config, to)
    except CommandError as error:
        raise _unknown(to, error) from error
    except postgres.RETRYABLE as error:
        away = isinstance(error, (OSError, TimeoutError))
        what = "the database cannot be reached" if away else "the database refused the migration"
        raise MigrateError(f"{what}: {postgres.describe(error)}") from error
    except Exception as error:
        # SQLAlchemy wraps the driver's errors; its text repeats the statement, the cause is enough.
        cause = getattr(error, "orig", None) or error
        raise MigrateError(f"the migration failed: {postgres.describe(cause)}") from error


def _unknown(to: str, error: CommandError) -> MigrateError:
    return MigrateError(f"revision {to!r}: {error}. Known are {', '.join(revisions())}, head, base")


async def upgrade(database_url: str, to: str = "head") -> None:
    """Bring the schema up to ``to``. Several callers at once are safe: one works, the others wait for it.

    Raises MigrateError.
    """
    await asyncio.to_thread(migrate_sync, database_url, to=to)


def statements(to: str = "head", *, down: bool = False) -> str:
    """The SQL of a migration from nothing to ``to`` (or, down, from head to ``to``), without running it."""
    output = io.StringIO()
    config = _config(output=output)
    try:
        with _ONE_AT_A_TIME:
            if down:
                alembic.downgrade(config, f"{revisions()[-1]}:{to}", sql=True)
            else:
                alembic.upgrade(config, to, sql=True)
    except CommandError as error:
        raise _unknown(to, error) from error
    return output.getvalue()


async def current(database_url: str) -> str:
    """The database's revision, empty when there is none. Raises MigrateError."""
    try:
        connection = await postgres.connect(database_url, name="feedmill-migrate")
    except postgres.RETRYABLE as error:
        starting = str(getattr(error, "sqlstate", None) or "").startswith("57P")
        kind = DatabaseAway if starting or isinstance(error, (OSError, TimeoutError)) else MigrateError
        raise kind(f"the database cannot be reached: {postgres.describe(error)}") from error
    try:
        return await postgres.revision(connection)
    except postgres.RETRYABLE as error:
        raise MigrateError(f"the database does not answer: {postgres.describe(error)}") from error
    finally:
        await postgres.close(connection)


async def await_database(database_url: str, seconds: float) -> None:
    """Try until it can be reached, for ``seconds`` at most; raises what the last try said (MigrateError)."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            await current(database_url)
            return
        except DatabaseAway:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(min(1.0, max(0.0, deadline - time.monotonic())))


def _wait(text: str) -> float:
    try:
        return Duration(text).seconds if text else 0.0
    except ValueError as error:
        raise ConfigError(f"--wait {error}") from None


def _database_url() -> str:
    value = read_setting(os.environ, "DATABASE_URL")
    if value is None:
        raise ConfigError(
            "no database: set DATABASE_URL to postgresql://user:password@host:5432/name, or DATABASE_URL_FILE"
        )
    return check_database_url(value.get_secret_value())


def _status(url: str) -> None:
    found, known = asyncio.run(current(url)), revisions()
    typer.echo(f"database: {found or 'none'}")
    typer.echo(f"known:    {known[-1]}")
    pending = [revision for revision in known if revision > found]
    typer.echo(f"pending:  {', '.join(pending) or 'none'}")
    if pending:
        raise typer.Exit(1)


def command(
    to: Annotated[str, typer.Option("--to", metavar="REVISION", help="Revision to go up to.")] = "head",
    down: Annotated[
        str, typer.Option("--down", metavar="REVISION", help="Go down to this revision instead (base = remove all).")
    ] = "",
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements instead of running them.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show the revision; exit 1 when some are pending.")] = False,
    wait: Annotated[
        str, typer.Option("--wait", metavar="DURATION", help="Wait so long for a database that is away, such as 60s.")
    ] = "",
) -> None:
    """Bring the database's schema up to date. The database is named by DATABASE_URL or DATABASE_URL_FILE.

    feedmill up does it by itself. Exit code: 0 up to date, 1 revisions are pending (--status), 2 it could not be done.

    \b
    feedmill migrate --status
    feedmill migrate
    feedmill migrate --sql > schema.sql
    """
    try:
        if sql:
            typer.echo(statements(down or to, down=bool(down)))
        elif status:
            _status(_database_url())
        else:
            url = _database_url()
            if patience := _wait(wait):
                asyncio.run(await_database(url, patience))
            migrate_sync(url, to=down or to, down=bool(down))
            typer.echo(f"database: {asyncio.run(current(url)) or 'none'}")
    except (ConfigError, MigrateError) as error:
        typer.echo(redact(str(error)), err=True)
        raise typer.Exit(2) from error

"""``feedmill maintain``: run maintenance now, see what it found, give up streams of a feed that is gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.cli.backup_run import Chosen
from feedmill.cli.common import BAD_CONFIG, DATA_DIR, FAILED, DataDir, fail, human_bytes, told
from feedmill.cli.options import Files, Output, Shape
from feedmill.cli.query import Manifests, PipelineName, SecretsFolder
from feedmill.cli.where import Where, redis_url
from feedmill.general.maintenance.show import report_lines, run_lines
from feedmill.shared.clock import iso, now_ns

if TYPE_CHECKING:
    import asyncpg

    from feedmill.general.maintenance.record import Run
    from feedmill.general.maintenance.report import Report
    from feedmill.general.maintenance.settings import Settings
    from feedmill.resources.collection import Key
    from feedmill.shared.redis.url import RedisUrl

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Maintenance of a pipeline's PostgreSQL and Redis. feedmill up and the operator run it every ten minutes:
partitions are made ahead and old ones dropped (spec.retention), old dead letters and entries of the audit log removed,
statistics made, and the streams of feeds that are gone removed from Redis once all of them is stored.
It also looks at what it does not change: bloat, dead rows, unused and missing indexes, what holds vacuum back.

\b
  feedmill maintain report                      what the last run did and found, with remedies
  feedmill maintain run -c feed.yaml            now; --dry-run only tells what it would do
  feedmill maintain forget -c feed.yaml NS/FEED give up what is left in Redis of a feed that is gone

The database is that of --data-dir, running or not, or the one of DATABASE_URL; in a cluster name the manifests and the
Secrets: --config /etc/feedmill/config/resources.yaml --secrets-dir /etc/feedmill/secrets""",
)


DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing: tell what would be done.")]
PATIENCE = 5.0
"""Seconds to wait for the run of a service."""


@told
def run(
    config: Files,
    dry_run: DryRun = False,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Run maintenance now, beside everything else. Exit code: 0 done, 1 a part of it failed.

    \b
    feedmill maintain run -c feed.yaml --dry-run
    feedmill maintain run -c feed.yaml
    """
    from feedmill.general.maintenance.run import carry_out, run_once

    async def work(connection: asyncpg.Connection, redis: RedisUrl | None, settings: Settings) -> Report:
        if dry_run:
            return await carry_out(connection, redis, settings, now_ns(), dry_run=True)
        return await run_once(connection, redis, settings, now_ns(), patience=PATIENCE)

    report = _work(Chosen.of(config, pipeline, secrets_dir, data_dir), work)
    _print(report, output)
    raise typer.Exit(FAILED if report.errors else 0)


@told
def report(
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=1000, metavar="NUMBER", help="Runs shown.")] = 1,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Show what the last run did and found: what to mend, how, and how large the tables are.

    \b
    feedmill maintain report
    feedmill maintain report -o json | jq .[0].report.findings
    """
    from feedmill.general.maintenance.record import last_runs

    async def ask(connection: asyncpg.Connection) -> list[Run]:
        return await last_runs(connection, last)

    runs = Where(data_dir, config, pipeline, secrets_dir).run("feedmill-maintain", ask)
    if output is Output.JSON:
        typer.echo(json.dumps([_document(found) for found in runs], indent=2))
        return
    if not runs:
        typer.echo("no run yet: feedmill up makes one at its start, feedmill maintain run makes one now")
    for number, found in enumerate(runs):
        if number:
            typer.echo("")
        for line in run_lines(found):
            typer.echo(line)


@told
def forget(
    feed: Annotated[str, typer.Argument(metavar="NAMESPACE/FEED", help="A feed that is in no manifest any more.")],
    config: Files,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: DataDir = DATA_DIR,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Remove the streams of a feed that is gone from Redis, also what of them was not stored: that is lost for good.

    What is stored in PostgreSQL stays. A feed that is in the manifests, or that a process works on, is left alone.

    \b
    feedmill maintain forget -c feed.yaml default/old-feed
    """
    from feedmill.general.maintenance.run import forget as remove

    chosen = Chosen.of(config, pipeline, secrets_dir, data_dir)
    key = _feed(feed, chosen)

    def removal(*, dry_run: bool) -> Report:
        async def work(connection: asyncpg.Connection, redis: RedisUrl | None, settings: Settings) -> Report:
            if redis is None:
                fail("Redis does not run: start feedmill up, or set REDIS_URL")
            return await remove(connection, redis, settings, now_ns(), key, dry_run=dry_run)

        return _work(chosen, work)

    if not yes:
        _told_of(removal(dry_run=True), feed)
        typer.confirm(f"remove the streams of {feed} from Redis for good?", abort=True)
    done = removal(dry_run=False)
    _told_of(done, feed)
    typer.echo(f"{feed}: removed, {human_bytes(done.removed[feed])} of memory")


app.command("run", short_help="Run maintenance now.")(run)
app.command("report", short_help="Show what the last run did and found.")(report)
app.command("forget", short_help="Give up the streams of a feed that is gone.")(forget)


def _told_of(report: Report, feed: str) -> None:
    """End the command where there is nothing to remove."""
    if feed in report.kept:
        fail(f"{feed}: {report.kept[feed]}")
    if not report.removed.get(feed):
        fail(f"{feed}: Redis holds nothing of it")


def _feed(text: str, chosen: Chosen) -> Key:
    namespace, slash, name = text.partition("/")
    if not namespace or not slash or not name or set("/.*?[]{}\\") & set(namespace + name):
        fail(f"{text!r} is not a feed: write NAMESPACE/FEED, such as default/btc", BAD_CONFIG)
    if (namespace, name) in chosen.resources.feeds:
        fail(f"{text} is in the manifests: take it out of them first, or leave it", BAD_CONFIG)
    return namespace, name


Work = Callable[["asyncpg.Connection", "RedisUrl | None", "Settings"], Awaitable["Report"]]


def _work(chosen: Chosen, work: Work) -> Report:
    """What ``work`` answers. Raises QueryError."""
    from feedmill.cli.query import QueryError
    from feedmill.general.maintenance.record import Busy
    from feedmill.general.maintenance.run import COMMAND_TIMEOUT
    from feedmill.general.maintenance.settings import settings_of
    from feedmill.shared import postgres
    from feedmill.shared.dumps import forbid_dumps
    from feedmill.shared.redis.wire import WireError

    redis = redis_url(chosen.pipeline, chosen.secrets_dir, chosen.data_dir)
    settings = settings_of(chosen.pipeline, chosen.resources)
    if redis is None:
        typer.echo("Redis does not run: streams are not looked at", err=True)

    async def session(url: str) -> Report:
        connection: asyncpg.Connection | None = None
        try:
            connection = await postgres.connect(url, name="feedmill maintain", command_timeout=COMMAND_TIMEOUT)
            await postgres.require_schema(connection)
            return await work(connection, redis, settings)
        except (postgres.SchemaBehind, Busy) as error:
            raise QueryError(str(error)) from error
        except (*postgres.RETRYABLE, WireError) as error:
            raise QueryError(postgres.describe(error)) from error
        finally:
            await postgres.close(connection)

    with chosen.url() as url:
        forbid_dumps()  # Not before: an embedded server that was started for this may keep its own limit.
        return asyncio.run(session(url))


def _print(report: Report, output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps({"outcome": report.outcome, "dryRun": report.dry_run, **report.document()}, indent=2))
        return
    for line in report_lines(report):
        typer.echo(line)


def _document(run: Run) -> dict[str, Any]:
    ended = iso(run.ended_ns) if run.ended_ns is not None else None
    return {"id": run.id, "startedAt": iso(run.started_ns), "endedAt": ended, "outcome": run.outcome,
            "report": run.report.document()}  # fmt: skip

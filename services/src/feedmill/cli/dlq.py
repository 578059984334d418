"""``feedmill dlq``: look at dead letters, drive them again after a fix, drop them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from feedmill.cli.common import BAD_CONFIG, DATA_DIR, FAILED, DataDir, columns, fail, moment, told
from feedmill.cli.manifests import one_pipeline
from feedmill.cli.options import Output, Shape
from feedmill.cli.query import Manifests, PipelineName, QueryError, SecretsFolder, database, pipeline_database
from feedmill.cli.where import redis_url as redis_of
from feedmill.dlq import letters, show
from feedmill.dlq.letters import BadId, Filter, Key
from feedmill.dlq.redrive import Outcome, Redriver, State
from feedmill.shared import postgres
from feedmill.shared.clock import now_ns
from feedmill.shared.redis.url import RedisUrl

if TYPE_CHECKING:
    import asyncpg

    from feedmill.processor.settings import ProcessorSettings
    from feedmill.resources.pipeline import FeedPipeline

T = TypeVar("T")
_AT_ONCE = 200
"""Letters between two times that candles are finished and distributors told."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Dead letters: frames and events that could not be handled. Nothing is thrown away: each is kept as it came,
with the reason and the version of the code that gave up on it, for spec.retention.deadLetters (90d), and the next ones
were handled.

A frame becomes one when the exchange sends what the code does not know, or through a fault of the code; an event when
PostgreSQL refuses its row. After the fix (a newer feedmill, a constraint removed) drive them again: the rows are as if
nothing had ever failed.

\b
  feedmill dlq list                       how many, by shard and reason
  feedmill dlq list --reason bad_json     each of them, with its id
  feedmill dlq show ID                    one, with all its bytes
  feedmill dlq redrive -c feed.yaml --all after the fix
  feedmill dlq drop --reason bad_json     what nobody needs any more

The database is that of --data-dir, running or not, or the one of DATABASE_URL; in a cluster name the manifests and the
Secrets: --config /etc/feedmill/config/resources.yaml --secrets-dir /etc/feedmill/secrets""",
)


Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID...", help="Ids of letters (SHARD/SESSION/BATCH/INDEX), as list shows them."),
]
Shard = Annotated[
    str | None, typer.Option("--shard", metavar="NAMESPACE.FEED.NUMBER", help="Only those of this shard.")
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="REASON", help="Only those with this reason.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only those received since: 2h (ago), or 2026-01-31T12:00 (UTC)."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only those received before.")]
All = Annotated[bool, typer.Option("--all", help="Every one there is.")]


@dataclass(frozen=True, slots=True)
class _Where:
    """Options that say which database."""

    data_dir: Path
    config: list[Path] | None
    pipeline: str | None
    secrets_dir: Path | None

    @contextlib.contextmanager
    def url(self) -> Iterator[str]:
        if self.config and self.secrets_dir is not None:
            yield pipeline_database(self.config, self.pipeline, self.secrets_dir)
        else:
            with database(self.data_dir) as (url, _):
                yield url


@told
def list_(
    shard: Shard = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    each: Annotated[bool, typer.Option("--each", help="One line a letter, also without a filter.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="NUMBER", help="Letters listed.")] = 50,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """List dead letters: counted by shard and reason, or (with a filter, or --each) one line a letter.

    \b
    feedmill dlq list
    feedmill dlq list --reason unknown_symbol --since 2h
    feedmill dlq list --each -o json | jq -r .letters[].id
    """
    wanted = _filter(None, shard, reason, since, until)

    async def ask(connection: asyncpg.Connection) -> tuple[list[letters.Group], list[tuple[letters.Letter, int]]]:
        found = await letters.find(connection, wanted, limit) if each or wanted != Filter() else []
        return await letters.groups(connection, wanted), found

    groups, found = _run(_Where(data_dir, config, pipeline, secrets_dir), ask)
    total = sum(group.letters for group in groups)
    if output is Output.JSON:
        counts = [
            {
                "shard": group.shard,
                "reason": group.reason,
                "letters": group.letters,
                "first": show.moment(group.first_ns),
                "last": show.moment(group.last_ns),
                "codeVersions": list(group.versions),
            }
            for group in groups
        ]
        listed = [show.document(letter, size) for letter, size in found]
        typer.echo(json.dumps({"total": total, "groups": counts, "letters": listed}, indent=2))
        return
    if not total:
        typer.echo("no dead letters" if wanted == Filter() else "no dead letters match")
        return
    if not found:
        lines = [("LETTERS", "SHARD", "REASON", "FIRST", "LAST", "VERSIONS")]
        for group in groups:
            span = (show.moment(group.first_ns), show.moment(group.last_ns))
            lines.append((str(group.letters), group.shard, group.reason, *span, ",".join(group.versions)))
        typer.echo(columns(lines))
        typer.echo("\nfeedmill dlq list --each (or a filter) shows them one by one, feedmill dlq show ID their bytes")
        return
    for letter, size in found:
        typer.echo(f"{letter.key}  {show.moment(letter.receive_ns)}  {letter.reason}  ({letter.code_version})")
        if letter.detail:
            typer.echo(f"    {show.text(letter.detail.encode())}")
        typer.echo(f"    {show.text(letter.payload, 110)}  [{size} bytes]")
    if total > len(found):
        typer.echo(f"\nthe oldest {len(found)} of {total}: --limit shows more")


@told
def show_(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of letters, as list shows them.")],
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Show dead letters with everything that is known of them: reason, code version, all bytes (hex and text).

    \b
    feedmill dlq show default.binance-spot.0/binance-spot-receiver-0-0-0198c2b5/12/3
    feedmill dlq show ID -o json | jq -r .[0].payload | base64 -d > frame
    """
    wanted = _keys(ids)

    async def ask(connection: asyncpg.Connection) -> list[letters.Letter | None]:
        return [await letters.read(connection, key) for key in wanted]

    found = _run(_Where(data_dir, config, pipeline, secrets_dir), ask)
    there = [letter for letter in found if letter is not None]
    if output is Output.JSON:
        typer.echo(json.dumps([show.document(letter) for letter in there], indent=2))
    for letter in there if output is Output.TEXT else ():
        key = letter.key
        lines = [
            ("id", str(key)),
            ("received", f"{show.moment(letter.receive_ns)} ({letter.receive_ns} ns), connection {letter.conn}"),
            ("reason", letter.reason),
            ("detail", show.text(letter.detail.encode())),
            ("code", f"feedmill {letter.code_version}"),
            ("bytes", str(len(letter.payload))),
        ]
        for name, value in lines:
            typer.echo(f"{name:<9} {value}")
        typer.echo(f"\n{show.text(letter.payload)}\n")
        for line in show.hexdump(letter.payload):
            typer.echo(line)
        typer.echo("")
    missing = [str(key) for key, letter in zip(wanted, found, strict=True) if letter is None]
    if missing:
        fail(f"no dead letter {', '.join(missing)}: feedmill dlq list --each shows what there is")


@told
def redrive(
    config: Annotated[
        list[Path],
        typer.Option("--config", "-c", metavar="FILE", help="The manifests of the feeds.", show_default=False),
    ],
    ids: Ids = None,
    shard: Shard = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    every: All = False,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Drive dead letters again with the code of this version: run it after the upgrade that brought the fix.

    Each frame is read by the mapper of today, and its rows are stored in the transaction that ends the letter: run
    twice it costs nothing, and what was stored meanwhile is not doubled. Candles are made anew, gap rows of the trades
    are closed, and the distributor is told (it emits them to readers of the events stream, marked late). A frame that
    fails again keeps its letter, with the new reason. Changes of books have no row to be made of: their letters stay
    until dropped. Works while the feeds run and while they do not.

    Exit code: 0 all that were named are stored, 1 some stay.

    \b
    feedmill dlq redrive -c feed.yaml --all
    feedmill dlq redrive -c feed.yaml --reason unknown_symbol --since 2026-01-31T12:00
    feedmill dlq redrive -c feed.yaml ID ID
    """
    wanted = _chosen(_filter(ids, shard, reason, since, until), every, "redrive")
    where = _Where(data_dir, config, pipeline, secrets_dir)
    worked_for, settings = _settings(config, pipeline)
    redis_url = redis_of(worked_for, where.secrets_dir, where.data_dir)
    with where.url() as url:
        outcomes, told_, note = asyncio.run(_redrive(url, redis_url, settings, wanted))
    states = Counter(item.state for item in outcomes)
    rows: Counter[str] = Counter()
    for item in outcomes:
        rows.update(item.rows)
    if output is Output.JSON:
        shown = [
            {
                "id": str(item.key),
                "state": item.state,
                "detail": item.detail,
                "rows": dict(item.rows),
                "known": item.known,
            }
            for item in outcomes
        ]
        typer.echo(json.dumps({"states": dict(states), "rows": dict(rows), "letters": shown, "note": note}, indent=2))
    else:
        for item in outcomes:
            if item.state in (State.FAILED, State.KEPT):
                typer.echo(f"{item.key}: {item.state}: {show.text(item.detail.encode())}")
        made = ", ".join(f"{count} {table}" for table, count in sorted(rows.items())) or "none"
        known = sum(item.known for item in outcomes)
        parts = ", ".join(f"{states[state]} {state}" for state in State if states[state]) or "none match"
        typer.echo(f"letters: {parts}; rows made: {made}{f', {known} were there already' if known else ''}")
        if told_:
            typer.echo(f"the distributor is told of {told_} frames with trades")
        if note:
            typer.echo(note)
    raise typer.Exit(FAILED if states[State.FAILED] or states[State.KEPT] else 0)


@told
def drop(
    ids: Ids = None,
    shard: Shard = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    every: All = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Remove dead letters for good: what is in them is lost. Asks first, unless --yes.

    \b
    feedmill dlq drop ID
    feedmill dlq drop --reason bad_json --until 2026-01-31
    feedmill dlq drop --all --yes
    """
    wanted = _chosen(_filter(ids, shard, reason, since, until), every, "drop")
    where = _Where(data_dir, config, pipeline, secrets_dir)

    async def count(connection: asyncpg.Connection) -> int:
        return sum(group.letters for group in await letters.groups(connection, wanted))

    async def remove(connection: asyncpg.Connection) -> int:
        return await letters.drop(connection, wanted)

    if not yes:
        found = _run(where, count)
        if found:
            typer.confirm(f"drop {found} dead letter{'' if found == 1 else 's'} for good?", abort=True)
    dropped = _run(where, remove)
    typer.echo(f"{dropped} dead letter{'' if dropped == 1 else 's'} dropped")


app.command("list", short_help="Count dead letters by shard and reason, or list them.")(list_)
app.command("show", short_help="Show letters with all their bytes.")(show_)
app.command("redrive", short_help="Store what they should have become, after a fix.")(redrive)
app.command("drop", short_help="Remove letters for good.")(drop)


def _run(where: _Where, ask: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
    async def run(url: str) -> T:
        async with _connected(url) as connection:
            return await ask(connection)

    with where.url() as url:
        return asyncio.run(run(url))


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Raises QueryError for what the server does not do."""
    connection: asyncpg.Connection | None = None
    try:
        connection = await postgres.connect(url, name="feedmill-dlq", command_timeout=60.0)
        await postgres.require_schema(connection)
        yield connection
    except postgres.SchemaBehind as error:
        raise QueryError(str(error)) from error
    except postgres.RETRYABLE as error:
        raise QueryError(f"the database: {postgres.describe(error)}") from error
    finally:
        await postgres.close(connection)


async def _redrive(
    url: str, redis_url: RedisUrl | None, settings: ProcessorSettings, wanted: Filter
) -> tuple[list[Outcome], int, str]:
    """(what became of each, frames the distributors are told of, a note)."""
    from feedmill.shared.log import configure, get_logger

    configure("dlq", level="error")
    outcomes: list[Outcome] = []
    count, note = 0, ""
    async with _connected(url) as connection:
        shards = {str(shard.ref): shard for shard in settings.shards}
        redriver = Redriver(connection, shards, settings.retention_ns)
        found = await letters.keys(connection, wanted)
        for at in range(0, len(found), _AT_ONCE):
            part = [await redriver.drive(key) for key in found[at : at + _AT_ONCE]]
            await redriver.finish(url, settings.intervals, get_logger())
            frames: dict[str, list[tuple[int, bytes]]] = {}
            for item in part:
                frames.setdefault(item.key.shard, []).extend(item.frames)
                item.frames = []
            if any(frames.values()):
                why = await _tell(redis_url, frames)
                count, note = (count, why) if why else (count + sum(map(len, frames.values())), note)
            outcomes += part
    known = {item.key for item in outcomes}
    outcomes += [Outcome(key, State.GONE) for key in wanted.keys if key not in known]
    return outcomes, count, note


async def _tell(redis_url: RedisUrl | None, frames: dict[str, list[tuple[int, bytes]]]) -> str:
    """Tell the distributors; answers why that was not possible."""
    from feedmill.dlq.telling import tell
    from feedmill.shared.keys import ShardRef
    from feedmill.shared.redis.wire import WireError, connect

    note = (
        "The rows are stored and the gap rows closed, but the distributor could not be told ({}): readers of the "
        "events stream do not get these trades, and it asks the exchange for them once more, which changes nothing."
    )
    if redis_url is None:
        return note.format("Redis does not run: start feedmill up, or set REDIS_URL")
    try:
        wire = await connect(redis_url, name="feedmill-dlq")
        try:
            async with asyncio.timeout(30.0):
                for shard, found in sorted(frames.items()):
                    if found:
                        await tell(wire, ShardRef.parse(shard), found, now_ns())
        finally:
            wire.abort()
    except (OSError, TimeoutError, WireError) as error:
        return note.format(f"{type(error).__name__}: {error}")
    return ""


def _settings(config: list[Path], name: str | None) -> tuple[FeedPipeline, ProcessorSettings]:
    """The pipeline and what its processors work by."""
    from feedmill.processor.settings import processor_settings
    from feedmill.resources.load import load_files

    resources = load_files(config, local=True)
    pipeline = one_pipeline(resources, name)
    return pipeline, processor_settings(pipeline, resources.feeds_of(pipeline), "")


def _chosen(wanted: Filter, every: bool, verb: str) -> Filter:
    """What changes letters wants to be told which."""
    if every and wanted != Filter():
        fail("--all goes with no ids and no filter: drop one of them", BAD_CONFIG)
    if not every and wanted == Filter():
        fail(f"which letters? Give ids or a filter, or --all; feedmill dlq {verb} --help has examples", BAD_CONFIG)
    return wanted


def _keys(ids: list[str]) -> tuple[Key, ...]:
    try:
        return tuple(dict.fromkeys(Key.parse(text) for text in ids))
    except BadId as error:
        fail(str(error), BAD_CONFIG)


def _filter(
    ids: list[str] | None, shard: str | None, reason: str | None, since: str | None, until: str | None
) -> Filter:
    return Filter(_keys(ids or []), shard, reason, moment(since, "--since"), moment(until, "--until"))

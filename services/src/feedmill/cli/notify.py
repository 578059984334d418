"""``feedmill notify``: try the bot and the chat, look at the outbox, send again, drop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from feedmill.cli.common import BAD_CONFIG, DATA_DIR, DataDir, fail, moment, told
from feedmill.cli.manifests import one_pipeline
from feedmill.cli.options import Files, Output, Shape
from feedmill.cli.query import Manifests, PipelineName, SecretsFolder
from feedmill.cli.where import Where
from feedmill.general.notify import outbox_sql as sql
from feedmill.general.notify.compose import Message, compose
from feedmill.general.notify.markdown import clean
from feedmill.general.notify.notices import Notice, Waiting
from feedmill.general.notify.settings import NotifySettings, notify_settings, read_token
from feedmill.general.notify.telegram import Telegram
from feedmill.general.notify.trying import Reached, bot_of, name_of, reach
from feedmill.resources.types import Severity
from feedmill.shared.clock import iso, now_ns
from feedmill.shared.dumps import forbid_dumps

if TYPE_CHECKING:
    import asyncpg

    from feedmill.resources.pipeline import FeedPipeline

T = TypeVar("T")
DAY = "1d"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Notifications by Telegram: what spec.notifications of a pipeline asks to be told.

What is to be told is a row in PostgreSQL from the moment it is known until Telegram has confirmed its message.

\b
  feedmill notify chats -c feed.yaml --secrets-dir secrets   which chats wrote to the bot, with the id for chatId
  feedmill notify test -c feed.yaml --secrets-dir secrets    send a message now
  feedmill notify list                                       what was told lately, and what waits
  feedmill notify list --refused                             what Telegram did not take
  feedmill notify retry --all                                send that again
  feedmill notify drop --all                                 do not send what waits

list, retry and drop work on the database of --data-dir or DATABASE_URL, or on the one of --config.""",
)


Ids = Annotated[list[int] | None, typer.Argument(metavar="ID...", help="Ids, as list shows them.")]
All = Annotated[bool, typer.Option("--all", help="Every one there is.")]


def _settings(config: list[Path], pipeline: str | None) -> NotifySettings:
    from feedmill.resources.load import load_files

    def tells(item: FeedPipeline) -> bool:
        return item.spec.notifications is not None

    resources = load_files(config, local=True)
    if pipeline is None and not any(map(tells, resources.pipelines.values())):
        fail("the files hold no FeedPipeline with spec.notifications: add telegram with chatId there", BAD_CONFIG)
    return notify_settings(resources, one_pipeline(resources, pipeline, tells))


def _with_bot(settings: NotifySettings, secrets_dir: Path | None, work: Callable[[Telegram], Awaitable[T]]) -> T:
    """Raises ConfigError, TelegramError."""
    token = read_token(settings, secrets_dir)

    async def talk() -> T:
        import aiohttp

        async with aiohttp.ClientSession() as http:
            return await work(bot_of(http, settings, token))

    forbid_dumps()
    return asyncio.run(talk())


@told
def try_out(
    config: Files,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Send a message to the chat now, past outbox, severity and quiet hours, and say what came of it.

    \b
    feedmill notify test -c feed.yaml --secrets-dir secrets
    """
    settings = _settings(config, pipeline)

    async def work(telegram: Telegram) -> tuple[Reached, int]:
        return await reach(telegram), await telegram.send(_hello(settings))

    reached, number = _with_bot(settings, secrets_dir, work)
    typer.echo(f"sent by {reached.bot} to {reached.chat}, message {number}")


def _hello(settings: NotifySettings) -> Message:
    """Every character that has a meaning in Telegram's markup is in it, so that the escaping is tried too."""
    body = {"text": "_ * [ ] ( ) ~ ` > # + - = | { } . ! \\", "kinds": sorted(settings.kinds)}
    notice = Notice("Test", Severity.INFO, settings.pipeline, "Test", body, now_ns())
    return next(compose([Waiting(0, notice)], lambda text, _: text))


@told
def chats(
    config: Files,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
    output: Shape = Output.TEXT,
) -> None:
    """List the chats that wrote to the bot in the last day, with the id that chatId wants.

    Write something to the bot, or add it to a group and write /start there, then run this. chatId in the manifest may
    be any number meanwhile. A bot with a webhook, or read by another program, shows nothing here.

    \b
    feedmill notify chats -c feed.yaml --secrets-dir secrets
    """

    async def work(telegram: Telegram) -> Any:
        return await telegram.call("getUpdates", {"timeout": 0, "limit": 100})

    found: dict[int, Mapping[str, Any]] = {}
    for update in _with_bot(_settings(config, pipeline), secrets_dir, work) or ():
        for part in update.values() if isinstance(update, dict) else ():
            chat = part.get("chat") if isinstance(part, dict) else None
            if isinstance(chat, dict) and isinstance(chat.get("id"), int):
                found[chat["id"]] = chat
    if output is Output.JSON:
        listed = [{"chatId": str(key), "type": chat.get("type"), "name": name_of(chat)} for key, chat in found.items()]
        typer.echo(json.dumps(listed, indent=2))
        return
    if not found:
        typer.echo("no chat wrote to the bot lately: write something to it, and run this again")
    for key, chat in found.items():
        typer.echo(f'chatId: "{key}"    {clean(str(chat.get("type")))}  {name_of(chat)}')


@told
def list_(
    waiting: Annotated[bool, typer.Option("--waiting", help="Only what was not sent yet.")] = False,
    refused: Annotated[bool, typer.Option("--refused", help="Only what was refused or dropped.")] = False,
    kind: Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only this kind, such as GapOpen.")] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Only since then: 2h (ago), or 2026-01-31T12:00 (UTC).")
    ] = DAY,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="NUMBER", help="The newest so many.")] = 50,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """List what was told and what waits to be, the newest last.

    \b
    feedmill notify list
    feedmill notify list --waiting
    feedmill notify list --since 7d --kind BackupFailed -o json
    """
    from_ns = moment(since, "--since") or 0

    async def ask(connection: asyncpg.Connection) -> list[asyncpg.Record]:
        return await connection.fetch(sql.LISTED, pipeline or "", kind or "", from_ns, waiting, refused, limit)

    rows = Where(data_dir, config, pipeline, secrets_dir).run("feedmill notify list", ask)[::-1]
    if output is Output.JSON:
        typer.echo(json.dumps([_document(row) for row in rows], indent=2))
        return
    if not rows:
        typer.echo("nothing was told in that time")
    for row in rows:
        typer.echo(f"{row['id']}  {iso(row['at_ns'])[:19]}Z  {row['severity']}  {_when(row)}")
        for line in _shown(row):
            typer.echo(f"    {line}")


def _document(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "id": row["id"], "pipeline": row["pipeline"], "at": iso(row["at_ns"]), "severity": row["severity"],
        "kind": row["kind"], "subject": row["subject"], "body": json.loads(row["body"]), "attempts": row["attempts"],
        "notBefore": iso(row["not_before_ns"]) if row["not_before_ns"] else None,
        "sent": iso(row["sent_ns"]) if row["sent_ns"] else None, "outcome": row["outcome"],
    }  # fmt: skip


def _when(row: asyncpg.Record) -> str:
    if row["sent_ns"]:
        return f"sent {iso(row['sent_ns'])[:19]}Z"
    if row["outcome"] == "waiting" and row["not_before_ns"] > now_ns():
        return f"waits until {iso(row['not_before_ns'])[:19]}Z"
    return str(row["outcome"])


def _shown(row: asyncpg.Record) -> list[str]:
    notice = Notice(
        row["kind"], Severity(row["severity"]), row["subject"], row["key"], json.loads(row["body"]), row["at_ns"]
    )
    return next(compose([Waiting(row["id"], notice)], lambda text, _: text)).plain.splitlines()


@told
def retry(
    ids: Ids = None,
    every: All = False,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Send again what was refused or dropped: those ids, or --all.

    \b
    feedmill notify retry --all
    """
    _change(sql.RETRY, ids, every, "to be sent again", Where(data_dir, config, pipeline, secrets_dir))


@told
def drop(
    ids: Ids = None,
    every: All = False,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Do not send what waits: those ids, or --all.

    \b
    feedmill notify drop --all
    """
    _change(sql.DROP, ids, every, "dropped", Where(data_dir, config, pipeline, secrets_dir))


def _change(statement: str, ids: list[int] | None, every: bool, done: str, where: Where) -> None:
    if bool(ids) == every:
        fail("give the ids (feedmill notify list shows them), or --all", BAD_CONFIG)

    async def work(connection: asyncpg.Connection) -> list[asyncpg.Record]:
        return await connection.fetch(statement, None if every else ids, where.pipeline or "")

    changed = {row["id"] for row in where.run("feedmill notify", work)}
    typer.echo(f"{len(changed)} {done}")
    if missing := sorted(set(ids or ()) - changed):
        fail(f"not changed, since they are not there or not of that kind: {', '.join(map(str, missing))}")


app.command("test", short_help="Send a message to the chat now.")(try_out)
app.command("chats", short_help="List chats that wrote to the bot, with their ids.")(chats)
app.command("list", short_help="List what was told and what waits.")(list_)
app.command("retry", short_help="Send again what was refused or dropped.")(retry)
app.command("drop", short_help="Do not send what waits.")(drop)

"""``feedmill accounts``: accounts at exchanges, and their secrets in the credential store."""

from __future__ import annotations

import contextlib
import getpass
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr

from feedmill.accounts import fields, store
from feedmill.accounts.audit import Who
from feedmill.accounts.fields import SecretsError
from feedmill.accounts.keyring import KeyFile, Keyring
from feedmill.accounts.places import without_place
from feedmill.accounts.store import Account, AccountError, Name, NewAccount
from feedmill.cli.account_keys import CheckKey, look_at_key
from feedmill.cli.common import BAD_CONFIG, DATA_DIR, DataDir, fail, plain, told
from feedmill.cli.query import Manifests, PipelineName, SecretsFolder
from feedmill.cli.where import Where
from feedmill.exchanges.registry import get_venue
from feedmill.resources.types import Environment
from feedmill.shared.config import read_text

if TYPE_CHECKING:
    import asyncpg

    from feedmill.accounts.asking import Judged

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Accounts at exchanges, and their secrets in the credential store.

Secrets are kept in PostgreSQL, each sealed with a key of its own, which is wrapped by a key-encryption key (KEK). The
KEK is in a file that you keep and PostgreSQL never sees: without it nobody opens a secret, you neither. Make one:

\b
  (umask 077; echo "2026-11 $(openssl rand -base64 32)" > kek)
  export FEEDMILL_KEK_FILE=$PWD/kek

Each line is an id and a key. The first line wraps, the others only open what they wrapped before. To change the KEK put
a new line first, run rewrap, and then take the old line away; what runs notices by itself.

\b
  feedmill accounts add main --exchange binance --market Spot        asks for the secrets
  feedmill accounts list
  feedmill accounts rotate-key main --secret-file new-secrets        after making a new key at the exchange
  feedmill accounts rewrap                                           after putting a new KEK first

Secrets are never arguments, which every user of the machine can read. Give them at the prompt, or by --secret-file (-
is standard input) as lines NAME=VALUE or as a JSON object, or name a folder with one file a secret:

\b
  apiKey=...                   the key, or Deribit's client id
  apiSecret=...                the secret that belongs to it, or
  privateKey=...               Binance with an Ed25519 key: PEM text, line ends written \\n (simpler: a folder)

Use a key that only reads. Every use and every change of a secret is in the table audit_log: who, where, what, when.
Exit codes: 0 done, 1 failed, 2 an option, a file or a secret is wrong.""",
)


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


AccountName = Annotated[
    str, typer.Argument(metavar="NAME", help="The account: NAME, or NAMESPACE/NAME.", show_default=False)
]
KekFile = Annotated[
    Path,
    typer.Option(
        "--kek-file",
        metavar="FILE",
        envvar="FEEDMILL_KEK_FILE",
        help="Key-encryption keys, one a line: ID and 32 bytes as base64.",
        show_default=False,
    ),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        help="The secrets: a file, - for standard input, or a folder with a file for each.",
        show_default="asked for",
    ),
]
Shape = Annotated[Output, typer.Option("--output", "-o", help="text for people, json for programs.")]


def _ring(path: Path) -> Keyring:
    return KeyFile(path, "--kek-file").ring()


def _secrets(source: Path | None, exchange: str, market: str) -> dict[str, SecretStr]:
    """From a file, a folder, standard input or the prompt, complete and of their form. Raises SecretsError."""
    if source is None:
        if not sys.stdin.isatty():
            raise SecretsError(
                "there is no terminal to ask on: give the secrets by --secret-file FILE (- reads them here)"
            )
        found = _prompted()
    elif str(source) == "-":
        found = fields.parse(sys.stdin.read(), "standard input")
    elif source.is_dir():
        found = {
            name: SecretStr(read_text(source / name, f"--secret-file {source}"))
            for name in fields.KNOWN
            if (source / name).exists()
        }
    else:
        found = fields.parse(read_text(source.expanduser().resolve(), "--secret-file"), f"--secret-file {source}")
    fields.check(exchange, market, found)
    return found


def _prompted() -> dict[str, SecretStr]:
    """What is typed is not shown."""
    return {name: SecretStr(getpass.getpass(f"{name}: ").strip()) for name in (fields.API_KEY, fields.API_SECRET)}


@contextlib.contextmanager
def _answer(output: Output) -> Iterator[dict[str, Any]]:
    """Gathers ``text`` and whatever else is said, and says it in the shape that is wanted."""
    said: dict[str, Any] = {}
    yield said
    text = said.pop("text")
    typer.echo(json.dumps(said, indent=2) if output is Output.JSON else text)


def _document(account: Account, problem: str = "") -> dict[str, Any]:
    """``problem``: why it is not listened to."""
    return {
        "name": str(account.name),
        "exchange": account.exchange,
        "market": account.market,
        "environment": account.environment,
        "origin": account.origin,
        "enabled": account.enabled,
        "problem": problem,
        "allowWithdraw": account.allow_withdraw,
        "endpoints": dict(account.endpoints),
        "key": {
            "verdict": account.verdict,
            "findings": account.verdict_detail,
            "expiresAt": plain(account.key_expires_at),
            "checkedAt": plain(account.checked_at),
        },
        "createdAt": plain(account.created_at),
        "updatedAt": plain(account.updated_at),
    }


@told
def add(
    name: AccountName,
    exchange: Annotated[
        str, typer.Option("--exchange", metavar="NAME", help="Such as binance, deribit.", show_default=False)
    ],
    market: Annotated[
        str, typer.Option("--market", metavar="NAME", help="Such as Spot, UsdM, Derivatives.", show_default=False)
    ],
    kek_file: KekFile,
    environment: Annotated[
        Environment, typer.Option("--environment", help="Which installation of the exchange.")
    ] = Environment.PRODUCTION,
    secret_file: SecretFile = None,
    stream: Annotated[
        str | None, typer.Option("--stream-endpoint", metavar="URL", help="Another address than the exchange's own.")
    ] = None,
    rest: Annotated[
        str | None, typer.Option("--rest-endpoint", metavar="URL", help="Another address than the exchange's own.")
    ] = None,
    allow_withdraw: Annotated[
        bool,
        typer.Option("--allow-withdraw", help="Use the key also when it may withdraw (it is flagged, not refused)."),
    ] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Store it, and connect only after enable.")] = False,
    check: CheckKey = True,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Add an account. Its secrets are asked for, or read from --secret-file.

    The exchange is asked what the key may do: one that is wrong, or may withdraw, is refused.

    \b
    feedmill accounts add main --exchange binance --market Spot
    feedmill accounts add desk/options --exchange deribit --market Derivatives --secret-file - < secrets
    """
    get_venue(exchange, market)
    endpoints = {key: _endpoint(key, url) for key, url in (("stream", stream), ("rest", rest)) if url is not None}
    new = NewAccount(
        Name.parse(name), exchange, market, environment.value, endpoints, allow_withdraw, enabled=not disabled
    )
    ring = _ring(kek_file)
    secrets = _secrets(secret_file, exchange, market)

    judged = None
    if check:
        judged = look_at_key(
            name, exchange, market, endpoints, environment.value, secrets, allow_withdraw=allow_withdraw
        )

    async def work(connection: asyncpg.Connection) -> Account:
        account = await store.add(connection, ring, new, secrets, Who.here())
        return await _judged(connection, account, judged)

    account = Where(data_dir, config, pipeline, secrets_dir).run("feedmill-accounts", work)
    with _answer(output) as said:
        said |= {"account": _document(account), "text": f"added {account.name}: {account.venue}, {_state(account)}"}


async def _judged(connection: asyncpg.Connection, account: Account, judged: Judged | None) -> Account:
    """The account with what was found of its key."""
    if judged is None:
        return account
    await store.set_verdict(connection, account, judged.verdict, judged.expires_at, Who.here())
    return await store.get(connection, account.name)


def _endpoint(key: str, url: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss", "http", "https") and parts.hostname and not parts.username
    except ValueError:
        usable = False
    if not usable:
        raise AccountError(
            f"--{key}-endpoint: is not a URL without user and password: write wss://host or https://host"
        )
    return url


def _state(account: Account) -> str:
    return "enabled" if account.enabled else "disabled"


@told
def list_(
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """List the accounts: where they are, whether they are used, what is known of their keys.

    \b
    feedmill accounts list
    feedmill accounts list -o json | jq -r '.accounts[] | select(.key.verdict == "warning") | .name'
    """
    found = Where(data_dir, config, pipeline, secrets_dir).run("feedmill-accounts", store.accounts)
    with _answer(output) as said:
        waiting = without_place(found)
        said["accounts"] = [_document(account, waiting.get(str(account.name), "")) for account in found]
        lines = [_table(found, waiting) if found else "no accounts: feedmill accounts add makes one"]
        said["text"] = "\n".join([*lines, *(f"{name}: {why}" for name, why in list(waiting.items())[:_TOLD])])


_TOLD = 10
"""Problems told in words; the others stand in the table."""


def _table(found: list[Account], waiting: Mapping[str, str]) -> str:
    rows = [("ACCOUNT", "EXCHANGE", "STATE", "KEY", "CHECKED")]
    rows += [
        (
            str(a.name),
            a.venue,
            "no place" if str(a.name) in waiting else _state(a),
            a.verdict,
            f"{a.checked_at:%Y-%m-%d %H:%M}" if a.checked_at else "never",
        )
        for a in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@told
def show(
    name: AccountName,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Show one account, which secrets it has (never the secrets), and the last entries of the audit log.

    \b
    feedmill accounts show main
    feedmill accounts show main -o json
    """
    wanted = Name.parse(name)

    async def work(connection: asyncpg.Connection) -> tuple[Account, str, list[store.Stored], list[dict[str, Any]]]:
        account = await store.get(connection, wanted)
        problem = without_place(await store.accounts(connection)).get(str(wanted), "")
        log = await connection.fetch(
            "SELECT at, actor, place, action, detail::text AS detail FROM audit_log WHERE account_id = $1 "
            "ORDER BY at DESC, id DESC LIMIT 10",
            account.id,
        )
        entries = [{**dict(row), "at": plain(row["at"]), "detail": json.loads(row["detail"])} for row in log]
        return account, problem, await store.stored(connection, account.id), entries

    account, problem, secrets, log = Where(data_dir, config, pipeline, secrets_dir).run("feedmill-accounts", work)
    with _answer(output) as said:
        said |= _document(account, problem)
        said["secrets"] = [
            {
                "field": item.field,
                "version": item.version,
                "wrappedBy": item.key_id,
                "storedAt": plain(item.created_at),
                "wrappedAt": plain(item.wrapped_at),
            }
            for item in secrets
        ]
        said["log"] = log
        said["text"] = "\n".join(_lines(account, problem, secrets, log))


def _lines(account: Account, problem: str, secrets: list[store.Stored], log: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{account.name}: {account.venue}, {_state(account)}"
    if problem:
        yield f"  not listened to: {problem}"
    for key, url in account.endpoints.items():
        yield f"  {key}: {url}"
    policy = "withdrawal allowed by policy" if account.allow_withdraw else "a key that may withdraw is refused"
    yield f"  key: {account.verdict}{f' ({account.verdict_detail})' if account.verdict_detail else ''}; {policy}"
    for item in secrets:
        yield f"  {item.field}: version {item.version} of {item.created_at:%Y-%m-%d %H:%M}, wrapped by {item.key_id}"
    for entry in log:
        what = f"{entry['action']} by {entry['actor']} at {entry['place']}"
        detail = _words(entry["detail"])
        yield f"  {entry['at'][:19]}Z {what}{f' ({detail})' if detail else ''}"


def _words(detail: dict[str, Any]) -> str:
    """What an entry of the log tells, for people."""
    parts = []
    for name, value in detail.items():
        told = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f"{name}: {told}" if told else "")
    return "; ".join(filter(None, parts))


@told
def rotate_key(
    name: AccountName,
    kek_file: KekFile,
    secret_file: SecretFile = None,
    check: CheckKey = True,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Store new secrets of an account in place of the former ones, which are destroyed. What runs takes them up.

    Make the new key at the exchange first, and end the old one there last. A new key that the exchange refuses, or that
    may withdraw, does not take the place of the old one.

    \b
    feedmill accounts rotate-key main
    feedmill accounts rotate-key main --secret-file new-secrets
    """
    wanted, ring, where = Name.parse(name), _ring(kek_file), Where(data_dir, config, pipeline, secrets_dir)

    async def look(connection: asyncpg.Connection) -> Account:
        return await store.get(connection, wanted)

    # Before the secrets are asked for, which may take a while: no session is held meanwhile.
    account = where.run("feedmill-accounts", look)
    secrets = _secrets(secret_file, account.exchange, account.market)

    judged = None
    if check:
        judged = look_at_key(
            str(wanted), account.exchange, account.market, account.endpoints, account.environment, secrets,
            allow_withdraw=account.allow_withdraw,
        )  # fmt: skip

    async def work(connection: asyncpg.Connection) -> int:
        await store.put(connection, ring, account, secrets, Who.here(), "rotate-key")
        await _judged(connection, account, judged)
        return max(item.version for item in await store.stored(connection, account.id))

    version = where.run("feedmill-accounts", work)
    with _answer(output) as said:
        said |= {"name": str(wanted), "version": version, "text": f"{wanted}: secrets are version {version} now"}


def _switch(name: str, enabled: bool, output: Output, where: Where) -> None:
    wanted = Name.parse(name)

    async def work(connection: asyncpg.Connection) -> bool:
        return await store.set_enabled(connection, wanted, enabled, Who.here())

    changed = where.run("feedmill-accounts", work)
    word = "enabled" if enabled else "disabled"
    with _answer(output) as said:
        said |= {"name": str(wanted), "enabled": enabled, "changed": changed}
        said["text"] = f"{wanted}: {word}" if changed else f"{wanted}: was {word} already"


@told
def disable(
    name: AccountName,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Stop an account's connections. Secrets and data stay.

    \b
    feedmill accounts disable main
    """
    _switch(name, False, output, Where(data_dir, config, pipeline, secrets_dir))


@told
def enable(
    name: AccountName,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Let an account connect again. What it missed is asked for by REST.

    \b
    feedmill accounts enable main
    """
    _switch(name, True, output, Where(data_dir, config, pipeline, secrets_dir))


@told
def remove(
    name: AccountName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Destroy an account's secrets and free its name. Orders, fills and balances stay. End the key at the exchange too.

    \b
    feedmill accounts remove main --yes
    """
    wanted = Name.parse(name)
    if not yes:
        if not sys.stdin.isatty():
            fail("accounts remove destroys secrets and there is no terminal to ask on: say --yes", BAD_CONFIG)
        typer.confirm(f"Destroy the secrets of {wanted}?", abort=True)

    async def work(connection: asyncpg.Connection) -> None:
        await store.remove(connection, wanted, Who.here())

    Where(data_dir, config, pipeline, secrets_dir).run("feedmill-accounts", work)
    with _answer(output) as said:
        said |= {"name": str(wanted), "removed": True, "text": f"{wanted}: removed"}


@told
def rewrap(
    kek_file: KekFile,
    output: Shape = Output.TEXT,
    data_dir: DataDir = DATA_DIR,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Wrap the keys of all secrets by the first key of the KEK file. The secrets themselves are not opened.

    Safe while accounts are in use, and safe to run again. Afterwards the old lines of the file are of no use: take them
    away. Exit code 1 when some could not be wrapped (each is named).

    \b
    feedmill accounts rewrap --kek-file kek
    """
    ring = _ring(kek_file)

    async def work(connection: asyncpg.Connection) -> store.Rewrapped:
        return await store.rewrap_all(connection, ring, Who.here())

    done = Where(data_dir, config, pipeline, secrets_dir).run("feedmill-accounts", work)
    with _answer(output) as said:
        said |= {"key": ring.current, "wrapped": done.done, "current": done.current, "failed": done.failed}
        said["at"] = datetime.now(UTC).isoformat()
        said["text"] = "\n".join(
            [f"wrapped by {ring.current} now: {done.done}; were so already: {done.current}; failed: {len(done.failed)}"]
            + [f"  {line}" for line in done.failed]
        )
    if done.failed:
        raise typer.Exit(1)


for _name, _command, _summary in (
    ("add", add, "Add an account with its secrets."),
    ("list", list_, "List the accounts."),
    ("show", show, "Show one account and its last log entries, never the secrets."),
    ("rotate-key", rotate_key, "Store new secrets in place of the former ones."),
    ("disable", disable, "Stop an account's connections."),
    ("enable", enable, "Let an account connect again."),
    ("remove", remove, "Destroy an account's secrets; its data stays."),
    ("rewrap", rewrap, "Wrap all secrets by the first key of the KEK file."),
):
    app.command(_name, short_help=_summary, context_settings={"help_option_names": ["-h", "--help"]})(_command)

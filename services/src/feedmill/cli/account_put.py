"""``feedmill accounts add`` and ``feedmill accounts rotate-key``: secrets come in, and their key is looked at first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.store import Account, AccountError, Name, NewAccount
from feedmill.cli.account_keys import CheckKey, look_at_key
from feedmill.cli.account_options import AccountName, KekFile, SecretFile, answer, keyring
from feedmill.cli.account_secrets import read_secrets
from feedmill.cli.account_words import document, state
from feedmill.cli.common import DATA_DIR, DataDir, told
from feedmill.cli.options import Output, Shape
from feedmill.cli.query import Manifests, PipelineName, SecretsFolder
from feedmill.cli.where import Where
from feedmill.exchanges.registry import get_venue
from feedmill.resources.types import Environment

if TYPE_CHECKING:
    import asyncpg

    from feedmill.accounts.asking import Judged


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
    ring = keyring(kek_file)
    secrets = read_secrets(secret_file, exchange, market)

    judged = None
    if check:
        judged = look_at_key(
            name, exchange, market, endpoints, environment.value, secrets, allow_withdraw=allow_withdraw
        )

    async def work(connection: asyncpg.Connection) -> Account:
        account = await store.add(connection, ring, new, secrets, Who.here())
        return await _judged(connection, account, judged)

    account = Where(data_dir, config, pipeline, secrets_dir).run("feedmill-accounts", work)
    with answer(output) as said:
        said |= {"account": document(account), "text": f"added {account.name}: {account.venue}, {state(account)}"}


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
    wanted, ring, where = Name.parse(name), keyring(kek_file), Where(data_dir, config, pipeline, secrets_dir)

    async def look(connection: asyncpg.Connection) -> Account:
        return await store.get(connection, wanted)

    # Before the secrets are asked for, which may take a while: no session is held meanwhile.
    account = where.run("feedmill-accounts", look)
    secrets = read_secrets(secret_file, account.exchange, account.market)

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
    with answer(output) as said:
        said |= {"name": str(wanted), "version": version, "text": f"{wanted}: secrets are version {version} now"}


async def _judged(connection: asyncpg.Connection, account: Account, judged: Judged | None) -> Account:
    """The account with what was found of its key."""
    if judged is None:
        return account
    await store.set_verdict(connection, account, judged.verdict, judged.expires_at, Who.here())
    return await store.get(connection, account.name)

"""``feedmill accounts disable``, ``enable``, ``remove``, ``rewrap``: what is done to accounts without new secrets."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.store import Name
from feedmill.cli.account_options import AccountName, KekFile, answer, keyring
from feedmill.cli.common import BAD_CONFIG, DATA_DIR, DataDir, fail, told
from feedmill.cli.options import Output, Shape
from feedmill.cli.query import Manifests, PipelineName, SecretsFolder
from feedmill.cli.where import Where

if TYPE_CHECKING:
    import asyncpg


def _switch(name: str, enabled: bool, output: Output, where: Where) -> None:
    wanted = Name.parse(name)

    async def work(connection: asyncpg.Connection) -> bool:
        return await store.set_enabled(connection, wanted, enabled, Who.here())

    changed = where.run("feedmill-accounts", work)
    word = "enabled" if enabled else "disabled"
    with answer(output) as said:
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
    with answer(output) as said:
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
    ring = keyring(kek_file)

    async def work(connection: asyncpg.Connection) -> store.Rewrapped:
        return await store.rewrap_all(connection, ring, Who.here())

    done = Where(data_dir, config, pipeline, secrets_dir).run("feedmill-accounts", work)
    with answer(output) as said:
        said |= {"key": ring.current, "wrapped": done.done, "current": done.current, "failed": done.failed}
        said["at"] = datetime.now(UTC).isoformat()
        said["text"] = "\n".join(
            [f"wrapped by {ring.current} now: {done.done}; were so already: {done.current}; failed: {len(done.failed)}"]
            + [f"  {line}" for line in done.failed]
        )
    if done.failed:
        raise typer.Exit(1)

"""``feedmill accounts list`` and ``feedmill accounts show``: which accounts there are, and all that is known of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from feedmill.accounts import store
from feedmill.accounts.places import without_place
from feedmill.accounts.store import Account, Name
from feedmill.cli.account_options import AccountName, answer
from feedmill.cli.account_words import document, lines, table
from feedmill.cli.common import DATA_DIR, DataDir, plain, told
from feedmill.cli.options import Output, Shape
from feedmill.cli.query import Manifests, PipelineName, SecretsFolder
from feedmill.cli.where import Where

if TYPE_CHECKING:
    import asyncpg

_TOLD = 10
"""Problems told in words; the others stand in the table."""


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
    with answer(output) as said:
        waiting = without_place(found)
        said["accounts"] = [document(account, waiting.get(str(account.name), "")) for account in found]
        shown = [table(found, waiting) if found else "no accounts: feedmill accounts add makes one"]
        said["text"] = "\n".join([*shown, *(f"{name}: {why}" for name, why in list(waiting.items())[:_TOLD])])


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
    with answer(output) as said:
        said |= document(account, problem)
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
        said["text"] = "\n".join(lines(account, problem, secrets, log))

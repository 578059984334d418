"""Accounts that manifests declare (ExchangeAccount): rows of ``accounts`` with origin manifest. Their secrets are in
mounted Secrets and never here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from feedmill.accounts import audit, store
from feedmill.accounts.audit import Who
from feedmill.accounts.store import MANIFEST, Account, Name

_LOCK = 0x6665_6564_6163_6374
"""Advisory lock: the members of a pool declare the same accounts, one after the other."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One account of the manifests."""

    name: Name
    exchange: str
    market: str
    environment: str
    secret: str
    """Name of the Secret with its keys."""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    enabled: bool = True

    @property
    def venue(self) -> str:
        return f"{self.exchange}/{self.market}/{self.environment}"


async def declare(
    connection: asyncpg.Connection, namespace: str, wanted: Sequence[Declared], who: Who, *, complete: bool = True
) -> dict[str, str]:
    """Make the rows what the manifests say. Those of ``namespace`` that no manifest names any more are disabled, if
    ``wanted`` is ``complete``.

    Returns ``namespace/name`` -> why an account cannot be had, with the remedy.
    """
    refused: dict[str, str] = {}
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        for each in wanted:
            why = await _one(connection, each, who)
            if why:
                refused[str(each.name)] = why
        if not complete:
            return refused
        names = [each.name.name for each in wanted if each.name.namespace == namespace]
        gone = await connection.fetch(
            "SELECT id, namespace, name FROM accounts WHERE removed_at IS NULL AND enabled AND origin = $1 "
            "AND namespace = $2 AND name <> ALL($3::text[])",
            *(MANIFEST, namespace, names),
        )
        for row in gone:
            await _change(connection, row["id"], Name(row["namespace"], row["name"]), None, who)
    return refused


async def _one(connection: asyncpg.Connection, wanted: Declared, who: Who) -> str:
    found = await store.find(connection, wanted.name, lock=True)
    if found is None:
        account_id = await connection.fetchval(
            "INSERT INTO accounts (namespace, name, exchange, market, environment, origin, endpoints, enabled) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
            *(wanted.name.namespace, wanted.name.name, wanted.exchange, wanted.market, wanted.environment),
            *(MANIFEST, json.dumps(dict(wanted.endpoints)), wanted.enabled),
        )
        detail = {"venue": wanted.venue, "enabled": wanted.enabled, "secret": wanted.secret}
        await audit.write(connection, who, "declare", account_id, str(wanted.name), detail)
        return ""
    if found.origin != MANIFEST:
        return (
            f"ExchangeAccount {wanted.name}: the credential store has an account of that name: give this one another "
            f"name, or feedmill accounts remove {wanted.name}"
        )
    if found.venue != wanted.venue:
        return (
            f"ExchangeAccount {wanted.name}: it was {found.venue} and would be {wanted.venue}, which is another "
            f"account: give it another name, or feedmill accounts remove {wanted.name}"
        )
    if (found.enabled, dict(found.endpoints)) != (wanted.enabled, dict(wanted.endpoints)):
        await _change(connection, found.id, found.name, wanted, who)
    return ""


async def _change(
    connection: asyncpg.Connection, account_id: int, name: Name, wanted: Declared | None, who: Who
) -> None:
    """``wanted`` None: no manifest names it any more."""
    if wanted is None:
        await connection.execute("UPDATE accounts SET enabled = false WHERE id = $1", account_id)
    else:
        await connection.execute(
            "UPDATE accounts SET enabled = $2, endpoints = $3 WHERE id = $1",
            *(account_id, wanted.enabled, json.dumps(dict(wanted.endpoints))),
        )
    await store.touch(connection, account_id)
    enabled = wanted is not None and wanted.enabled
    detail = {"enabled": enabled, "declared": wanted is not None}
    await audit.write(connection, who, "declare", account_id, str(name), detail)


def is_declared(account: Account) -> bool:
    return account.origin == MANIFEST

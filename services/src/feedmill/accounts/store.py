"""The credential store: accounts and their sealed secrets in PostgreSQL.

Whatever changes or opens a secret does it in one transaction with its entry in the audit log: an entry that cannot be
written means that the secret is not given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg
from pydantic import SecretStr

from feedmill.accounts import audit
from feedmill.accounts.audit import Who
from feedmill.accounts.fields import Secrets, check
from feedmill.accounts.hygiene import Verdict
from feedmill.accounts.keyring import Keyring
from feedmill.accounts.sealing import Place, Sealed, SealError, open_sealed, rewrap, seal
from feedmill.shared.log import register_secret

NAMESPACE = "default"
STORE, MANIFEST = "store", "manifest"
"""Origins of accounts: this store, or an ExchangeAccount, whose secrets are not here."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_COLUMNS = """id, namespace, name, exchange, market, environment, origin, endpoints::text AS endpoints, enabled,
    allow_withdraw, revision, verdict, verdict_detail, key_expires_at, checked_at, created_at, updated_at"""
_AT_ONCE = 100
"""Secrets wrapped anew in one transaction."""


class AccountError(ValueError):
    """What was asked of an account cannot be done; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class Name:
    """``namespace/name`` of an account."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Name:
        """``NAME`` or ``NAMESPACE/NAME``. Raises AccountError."""
        namespace, slash, name = text.rpartition("/")
        made = cls(namespace if slash else NAMESPACE, name)
        if not _NAME.fullmatch(made.namespace) or not _NAME.fullmatch(made.name):
            raise AccountError(
                f"account {text[:80]!r}: write NAME or NAMESPACE/NAME in lower-case letters, digits and -, such as main"
            )
        return made


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What is stored of an account when it is added."""

    name: Name
    exchange: str
    market: str
    environment: str = "Production"
    endpoints: Mapping[str, str] = field(default_factory=dict)
    allow_withdraw: bool = False
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Account:
    """A row of ``accounts``."""

    id: int
    name: Name
    exchange: str
    market: str
    environment: str
    origin: str
    endpoints: Mapping[str, str]
    enabled: bool
    allow_withdraw: bool
    revision: int
    verdict: str
    verdict_detail: str
    key_expires_at: datetime | None
    checked_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def venue(self) -> str:
        return f"{self.exchange}/{self.market}/{self.environment}"

    def place(self, secret: str, version: int) -> Place:
        return Place(self.id, self.venue, secret, version)


@dataclass(frozen=True, slots=True)
class Stored:
    """What may be shown of a secret."""

    field: str
    version: int
    key_id: str
    created_at: datetime
    wrapped_at: datetime


@dataclass(frozen=True, slots=True)
class Listed:
    """What a pool of account receivers knows of an account."""

    account: Account
    version: int
    """Of its secrets in the store; 0 = it has none there."""
    stored_at: datetime | None
    """When these were stored."""
    removed: bool


def _account(row: asyncpg.Record | dict[str, Any]) -> Account:
    values = dict(row)
    name = Name(values.pop("namespace"), values.pop("name"))
    return Account(name=name, **(values | {"endpoints": json.loads(values["endpoints"])}))


async def accounts(connection: asyncpg.Connection) -> list[Account]:
    """All that are not removed, by name."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM accounts WHERE removed_at IS NULL ORDER BY namespace, name"  # noqa: S608
    )
    return [_account(row) for row in rows]


async def signature(connection: asyncpg.Connection) -> tuple[int, ...]:
    """Another one after each change of any account: few bytes to ask for again and again."""
    row = await connection.fetchrow(
        "SELECT count(*), coalesce(sum(revision), 0)::bigint, coalesce(max(id), 0) FROM accounts"
    )
    return tuple(row) if row is not None else ()


async def listed(connection: asyncpg.Connection) -> list[Listed]:
    """All accounts, and those removed within a day, whose streams may still bring something; of each name one."""
    rows = await connection.fetch(
        f"""SELECT DISTINCT ON (namespace, name) {_COLUMNS}, removed_at IS NOT NULL AS removed,
        coalesce(c.version, 0) AS version, c.stored_at
        FROM accounts LEFT JOIN (
            SELECT account_id, max(version) AS version, max(created_at) AS stored_at
            FROM credentials GROUP BY account_id
        ) c ON c.account_id = accounts.id
        WHERE removed_at IS NULL OR removed_at > now() - interval '1 day'
        ORDER BY namespace, name, removed_at IS NULL DESC, id DESC"""  # noqa: S608
    )
    found = []
    for row in rows:
        values = dict(row)
        version, stored_at, removed = values.pop("version"), values.pop("stored_at"), values.pop("removed")
        found.append(Listed(_account(values), version, stored_at, removed))
    return found


async def find(connection: asyncpg.Connection, name: Name, *, lock: bool = False) -> Account | None:
    """The account of that name. ``lock``: until the transaction ends nobody else changes it."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM accounts WHERE namespace = $1 AND name = $2 AND removed_at IS NULL"  # noqa: S608
        + (" FOR UPDATE" if lock else ""),
        *(name.namespace, name.name),
    )
    return _account(row) if row is not None else None


async def get(connection: asyncpg.Connection, name: Name, *, lock: bool = False) -> Account:
    """As :func:`find`; raises AccountError when there is none."""
    found = await find(connection, name, lock=lock)
    if found is None:
        raise AccountError(f"account {name}: there is none of that name: feedmill accounts list shows those there are")
    return found


async def stored(connection: asyncpg.Connection, account_id: int) -> list[Stored]:
    rows = await connection.fetch(
        "SELECT field, version, key_id, created_at, wrapped_at FROM credentials WHERE account_id = $1 ORDER BY field",
        account_id,
    )
    return [Stored(**dict(row)) for row in rows]


async def create(connection: asyncpg.Connection, new: NewAccount, who: Who) -> Account:
    """Add an account, without secrets. Raises AccountError when the name is taken."""
    async with connection.transaction():
        account_id = await connection.fetchval(
            "INSERT INTO accounts (namespace, name, exchange, market, environment, origin, endpoints, allow_withdraw, "
            "enabled) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
            "ON CONFLICT (namespace, name) WHERE removed_at IS NULL DO NOTHING RETURNING id",
            *(new.name.namespace, new.name.name, new.exchange, new.market, new.environment, STORE),
            *(json.dumps(dict(new.endpoints)), new.allow_withdraw, new.enabled),
        )
        if account_id is None:
            raise AccountError(
                f"account {new.name}: the name is taken: take another, or change that one's secrets with rotate-key"
            )
        detail = {"venue": f"{new.exchange}/{new.market}/{new.environment}", "enabled": new.enabled}
        await audit.write(connection, who, "add", account_id, str(new.name), detail)
        return await get(connection, new.name)


async def add(connection: asyncpg.Connection, ring: Keyring, new: NewAccount, secrets: Secrets, who: Who) -> Account:
    """Add an account with its secrets. Raises AccountError, SecretsError, SealError: then nothing is stored."""
    check(new.exchange, new.market, secrets)
    async with connection.transaction():
        account = await create(connection, new, who)
        await put(connection, ring, account, secrets, who, "store-key")
        return account


async def put(
    connection: asyncpg.Connection, ring: Keyring, account: Account, secrets: Secrets, who: Who, action: str
) -> None:
    """Store all secrets of an account in place of the former ones, which are gone. Raises SecretsError, SealError."""
    check(account.exchange, account.market, secrets)
    async with connection.transaction():
        if (await get(connection, account.name, lock=True)).origin == MANIFEST:
            raise AccountError(f"account {account.name}: is an ExchangeAccount: change its Secret")
        rows = await connection.fetch("DELETE FROM credentials WHERE account_id = $1 RETURNING version", account.id)
        version = max((row["version"] for row in rows), default=0) + 1
        for name, secret in secrets.items():
            register_secret(secret.get_secret_value())
            sealed = seal(ring, account.place(name, version), secret.get_secret_value())
            await connection.execute(
                "INSERT INTO credentials (account_id, field, version, format, key_id, wrapped_key, ciphertext) "
                "VALUES ($1, $2, $3, $4, $5, $6, $7)",
                *(account.id, name, version, sealed.format, sealed.key_id, sealed.wrapped_key, sealed.ciphertext),
            )
        await touch(connection, account.id)
        detail = {"fields": sorted(secrets), "version": version, "key": ring.current}
        await audit.write(connection, who, action, account.id, str(account.name), detail)


async def open_secrets(
    connection: asyncpg.Connection, ring: Keyring, account: Account, who: Who, purpose: str
) -> dict[str, SecretStr]:
    """The secrets of an account, for ``purpose``, which goes into the audit log. Registered for redaction.

    Raises SealError, and AccountError when there are none. A failed try is in the audit log too.
    """
    rows = await connection.fetch(
        "SELECT field, version, format, key_id, wrapped_key, ciphertext FROM credentials WHERE account_id = $1",
        account.id,
    )
    if not rows:
        raise AccountError(f"account {account.name}: has no secrets: store them with feedmill accounts rotate-key")
    opened: dict[str, SecretStr] = {}
    try:
        for row in rows:
            text = open_sealed(ring, account.place(row["field"], row["version"]), _sealed(row))
            register_secret(text)
            opened[row["field"]] = SecretStr(text)
    except SealError as error:
        await audit.write(
            connection, who, "use-failed", account.id, str(account.name), {"purpose": purpose, "error": str(error)}
        )
        raise
    detail = {"purpose": purpose, "version": max(row["version"] for row in rows)}
    await audit.write(connection, who, "use", account.id, str(account.name), detail)
    return opened


def _sealed(row: asyncpg.Record) -> Sealed:
    return Sealed(row["format"], row["key_id"], row["wrapped_key"], row["ciphertext"])


async def touch(connection: asyncpg.Connection, account_id: int) -> None:
    await connection.execute(
        "UPDATE accounts SET revision = revision + 1, updated_at = now() WHERE id = $1", account_id
    )


async def set_enabled(connection: asyncpg.Connection, name: Name, enabled: bool, who: Who) -> bool:
    """False when it was so already. Raises AccountError."""
    async with connection.transaction():
        account = await get(connection, name, lock=True)
        if account.origin == MANIFEST:
            raise AccountError(
                f"account {name}: is an ExchangeAccount: set spec.suspend there, or take it out of the manifests"
            )
        if account.enabled == enabled:
            return False
        if enabled and not await stored(connection, account.id):
            raise AccountError(f"account {name}: has no secrets: store them with feedmill accounts rotate-key first")
        await connection.execute("UPDATE accounts SET enabled = $2 WHERE id = $1", account.id, enabled)
        await touch(connection, account.id)
        await audit.write(connection, who, "enable" if enabled else "disable", account.id, str(name))
        return True


async def remove(connection: asyncpg.Connection, name: Name, who: Who) -> None:
    """Destroy the secrets and free the name; orders, fills and balances stay. Raises AccountError."""
    async with connection.transaction():
        account = await get(connection, name, lock=True)
        await connection.execute("DELETE FROM credentials WHERE account_id = $1", account.id)
        await connection.execute("UPDATE accounts SET enabled = false, removed_at = now() WHERE id = $1", account.id)
        await touch(connection, account.id)
        await audit.write(connection, who, "remove", account.id, str(name))


async def set_verdict(
    connection: asyncpg.Connection, account: Account, verdict: Verdict, expires_at: datetime | None, who: Who
) -> None:
    """Keep what was found of a key. One that is refused is not listened to until another reading finds it mended.

    The same again is only a later time, without an entry in the audit log.
    """
    async with connection.transaction():
        same = await connection.fetchval(
            "UPDATE accounts SET checked_at = now() WHERE id = $1 AND verdict = $2 AND verdict_detail = $3 "
            "AND key_expires_at IS NOT DISTINCT FROM $4 RETURNING true",
            *(account.id, verdict.level.value, str(verdict), expires_at),
        )
        if same:
            return
        await connection.execute(
            "UPDATE accounts SET verdict = $2, verdict_detail = $3, key_expires_at = $4, checked_at = now() "
            "WHERE id = $1",
            *(account.id, verdict.level.value, str(verdict), expires_at),
        )
        await touch(connection, account.id)
        detail = {"verdict": verdict.level.value, "findings": list(verdict.findings)}
        await audit.write(connection, who, "check-key", account.id, str(account.name), detail)


@dataclass(slots=True)
class Rewrapped:
    """What a rewrap did."""

    done: int = 0
    current: int = 0
    """Were wrapped by the current key already."""
    failed: list[str] = field(default_factory=list)


async def rewrap_all(connection: asyncpg.Connection, ring: Keyring, who: Who) -> Rewrapped:
    """Wrap every data key by the current key. Safe to break off and to run again, and while accounts are in use."""
    result = Rewrapped()
    after: tuple[int, str] = (0, "")
    while True:
        async with connection.transaction():
            rows: Sequence[asyncpg.Record] = await connection.fetch(
                "SELECT c.account_id, c.field, c.version, c.format, c.key_id, c.wrapped_key, c.ciphertext, "
                "a.exchange || '/' || a.market || '/' || a.environment AS venue, a.namespace || '/' || a.name AS name "
                "FROM credentials c JOIN accounts a ON a.id = c.account_id WHERE (c.account_id, c.field) > ($1, $2) "
                "ORDER BY c.account_id, c.field LIMIT $3 FOR UPDATE OF c",
                *after,
                _AT_ONCE,
            )
            if not rows:
                return result
            for row in rows:
                await _rewrap_one(connection, ring, who, row, result)
        after = (rows[-1]["account_id"], rows[-1]["field"])


async def _rewrap_one(
    connection: asyncpg.Connection, ring: Keyring, who: Who, row: asyncpg.Record, result: Rewrapped
) -> None:
    if row["key_id"] == ring.current:
        result.current += 1
        return
    place = Place(row["account_id"], row["venue"], row["field"], row["version"])
    try:
        sealed = rewrap(ring, place, _sealed(row))
    except SealError as error:
        result.failed.append(f"{row['name']}: {error}")
        return
    await connection.execute(
        "UPDATE credentials SET key_id = $3, wrapped_key = $4, wrapped_at = now() WHERE account_id = $1 AND field = $2",
        *(place.account, place.field, sealed.key_id, sealed.wrapped_key),
    )
    detail = {"field": place.field, "from": row["key_id"], "to": sealed.key_id}
    await audit.write(connection, who, "rewrap", place.account, row["name"], detail)
    result.done += 1

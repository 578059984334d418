"""Secrets of a file, straight into the credential store: all of them, or none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import asyncpg
from pydantic import SecretStr

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.fields import API_KEY, API_SECRET
from feedmill.accounts.keyring import Keyring
from feedmill.accounts.store import Name, NewAccount
from feedmill.exchanges.registry import get_venue
from feedmill.importing.reading import Texts
from feedmill.shared.log import register_secret


@dataclass(slots=True)
class Moved:
    """Names of accounts by what became of their secrets."""

    stored: list[str] = field(default_factory=list)
    equal: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    """Have other secrets in the store, which were left."""


async def move(connection: asyncpg.Connection, ring: Keyring, rows: Iterable[Texts], who: Who) -> Moved:
    """Add an account for each row; one that has secrets is compared and left. Accounts are off until ``enable``.

    Raises SecretsError, SealError, AccountError, UnknownVenue: then nothing is stored.
    """
    moved = Moved()
    async with connection.transaction():
        for account, exchange, market, key, secret in rows:
            values = {API_KEY: str(key), API_SECRET: str(secret)}
            for value in values.values():
                register_secret(value)
            secrets = {name: SecretStr(value) for name, value in values.items()}
            get_venue(str(exchange), str(market))
            name = Name.parse(str(account))
            found = await store.find(connection, name)
            if found is None:
                new = NewAccount(name, str(exchange), str(market), enabled=False)
                await store.add(connection, ring, new, secrets, who)
            elif not await store.stored(connection, found.id):
                await store.put(connection, ring, found, secrets, who, "store-key")
            else:
                opened = await store.open_secrets(connection, ring, found, who, "comparing with an imported file")
                same = {field: item.get_secret_value() for field, item in opened.items()} == values
                (moved.equal if same else moved.differing).append(str(name))
                continue
            moved.stored.append(str(name))
    return moved

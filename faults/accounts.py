"""The accounts of a world: in the credential store with the simulator's keys, and how far behind their tables are."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import SecretStr

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.keyring import KeyFile
from feedmill.accounts.store import Name, NewAccount
from feedmill.local.embedded.files import write_private

FRESH = 2_000_000_000
"""ns: an account whose newest stored state of an order is younger is up to date; it acts a few times a second."""
KINDS = ("hmac", "ed25519")
"""Of the keys of a venue's accounts, in turn; Deribit has the first only."""
WHO = Who.here("make faults")

_STATE = """
SELECT a.name,
       (SELECT max(o.venue_ns) FROM orders o WHERE o.account_id = a.id) AS newest,
       (SELECT count(*) FROM gaps g WHERE g.shard = s.shard AND g.channel = 'Account') AS gaps,
       (SELECT count(*) FROM gaps g WHERE g.shard = s.shard AND g.channel = 'Account' AND g.state = 'open') AS open
FROM accounts a, LATERAL (SELECT a.namespace || '.@' || a.name || '.0' AS shard) s WHERE a.removed_at IS NULL
"""


class Accounts:
    """Of one world; each method is given the database as it can be reached now."""

    def __init__(self, folder: Path) -> None:
        self.keys_file = folder / "keys.json"
        """Written by the simulator."""
        self.kek_file = folder / "kek"
        self.names: list[tuple[str, str]] = []
        """(venue, name), as the simulator has them."""

    def _read(self) -> dict[str, Any]:
        found = json.loads(self.keys_file.read_text("utf-8"))
        assert isinstance(found, dict)
        return found

    async def register(self, database_url: str) -> None:
        """Every account of the simulator, with one of its keys."""
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        await asyncio.to_thread(write_private, self.kek_file, f"faults {key}\n")
        found = await asyncio.to_thread(self._read)
        ring = KeyFile(self.kek_file).ring()
        connection = await asyncpg.connect(database_url)
        try:
            for venue, content in found.items():
                exchange, _, market = venue.partition("/")
                endpoints = {kind: content[kind] for kind in ("stream", "rest")}
                for number, name in enumerate(sorted({entry["account"] for entry in content["accounts"]})):
                    new = NewAccount(Name.parse(name), exchange, market, endpoints=endpoints)
                    given = _newest(content["accounts"], name, KINDS[number % len(KINDS)])
                    await store.add(connection, ring, new, given, WHO)
                    self.names.append((venue, name))
        finally:
            await connection.close()

    async def take_newest(self, database_url: str, name: str) -> None:
        """As ``feedmill accounts rotate-key``: the newest key that the simulator has of the account."""
        found = await asyncio.to_thread(self._read)
        listed = [entry for content in found.values() for entry in content["accounts"]]
        connection = await asyncpg.connect(database_url)
        try:
            account = await store.get(connection, Name.parse(name))
            ring = KeyFile(self.kek_file).ring()
            await store.put(connection, ring, account, _newest(listed, name, KINDS[0]), WHO, "rotate-key")
        finally:
            await connection.close()

    async def state(self, connection: asyncpg.Connection) -> list[asyncpg.Record]:
        """Of each account: name, newest (venue's ns of the newest state of an order, or None), gaps, open (gaps)."""
        return list(await connection.fetch(_STATE, timeout=60.0))


def up_to_date(state: list[asyncpg.Record], wanted: int, since_ns: int) -> bool:
    """Each account was reconciled, has no open gap, and what is stored of it is new, and not from before ``since_ns``:
    a gap that is not known yet comes before that."""
    oldest = max(since_ns, time.time_ns() - FRESH)
    return len(state) == wanted and all(
        row["gaps"] and not row["open"] and (row["newest"] or 0) > oldest for row in state
    )


def _newest(listed: list[dict[str, str]], name: str, kind: str) -> dict[str, SecretStr]:
    """The account's last key of that kind, or of any where there is none of it."""
    own = [entry for entry in listed if entry["account"] == name]
    entry = [entry for entry in own if entry["type"] == kind] or own
    return {field: SecretStr(entry[-1][field]) for field in ("apiKey", "apiSecret", "privateKey") if field in entry[-1]}

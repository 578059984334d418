"""Rows into PostgreSQL: batches by COPY into a staged table, then one insert; each batch with its position.

Keys are natural, so what is there already is left as it is, and a second run changes nothing. Every row of the file is
then looked for in the database by its key and compared by a hash of its fields: the sums of both sides, the file's made
before and the other from what is stored, are the checksums.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import asyncpg

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.store import Account, Name, NewAccount
from feedmill.exchanges.registry import get_venue
from feedmill.importing import ImportRefused
from feedmill.importing.mapping import Mapping
from feedmill.importing.reading import Checked, Plan
from feedmill.importing.shapes import Field, Target
from feedmill.importing.spool import Owner, Spool

BATCH = 50_000
"""Rows of a transaction: what a run that is cut off does again."""


@dataclass(slots=True)
class Done:
    """Of one table: rows stored so far, and the checksums of both sides."""

    rows: int = 0
    inserted: int = 0
    differing: int = 0
    file_checksum: int = 0
    stored_checksum: int = 0

    @property
    def equal(self) -> bool:
        return not self.differing and self.file_checksum == self.stored_checksum


def _hashed(target: Target) -> list[Field]:
    return [item for item in target.fields if item.name not in ("account", "symbol")]


def _stored_text(item: Field) -> str:
    """SQL of a stored value as its text in the file; null is an empty text to ``concat``."""
    if not item.column:  # The begin of a candle.
        return "(extract(epoch FROM t.open_time) * 1000000000)::bigint"
    if item.type == "numeric":
        return f"trim_scale(t.{item.column})"
    return f"t.{item.column}{'::text' if item.type == 'boolean' else ''}"


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL of one target. ``$1`` and so on: ids by the number of the owner, as ``owners`` says."""

    owners: tuple[str, ...]
    stage: str
    insert: str
    current: str
    compare: str

    @classmethod
    def of(cls, target: Target) -> Statements:
        owners = [name for name, has in (("account_id", target.account), ("instrument_id", target.instrument)) if has]
        hashed = _hashed(target)
        staged = ", ".join(f"{item.name} {item.type}" for item in hashed)
        values = {name: f"(${at}::integer[])[s.owner]" for at, name in enumerate(owners, 1)}
        values |= {item.column: _staged(item) for item in hashed if item.column} | target.fixed
        columns, chosen = ", ".join(values), ", ".join(values.values())
        needed = {*owners, *(item.column for item in hashed if item.needed), *target.fixed}
        keys = [
            f"t.{name} {'=' if name in needed else 'IS NOT DISTINCT FROM'} {values[name]}"
            for name in (*owners, *target.key)
        ]
        text = ", E'\\t', ".join(_stored_text(item) for item in hashed)
        current = ""
        if target.current:
            key = [name.strip() for name in target.current_key.split(",")]
            first = ", ".join(values[name] for name in key)
            later = ", ".join(f"{values[name]} DESC" for name in target.rank)
            ours = ", ".join(f"{target.current}.{name}" for name in target.rank)
            theirs = ", ".join(f"excluded.{name}" for name in target.rank)
            changed = ", ".join(f"{name} = excluded.{name}" for name in values if name not in key)
            current = (  # Names of our own tables and columns only, here and below.
                f"INSERT INTO {target.current} ({columns}) SELECT DISTINCT ON ({first}) {chosen} FROM staged s "  # noqa: S608
                f"ORDER BY {first}, {later} ON CONFLICT ({target.current_key}) DO UPDATE SET {changed} "
                f"WHERE ({ours}) < ({theirs})"
            )
        return cls(
            tuple(owners),
            f"CREATE TEMP TABLE staged (owner integer, {staged}, hash bigint) ON COMMIT DROP",
            f"INSERT INTO {target.table} ({columns}) SELECT {chosen} FROM staged s ON CONFLICT DO NOTHING",  # noqa: S608
            current,
            "SELECT count(*) FILTER (WHERE h IS DISTINCT FROM hash) AS differing, sum(hash) AS file, "  # noqa: S608
            f"coalesce(sum(h), 0) AS stored FROM (SELECT s.hash, CASE WHEN t.{owners[0]} IS NOT NULL THEN "
            f"('x' || substr(md5(concat({text})), 1, 16))::bit(64)::bigint END AS h "
            f"FROM staged s LEFT JOIN {target.table} t ON {' AND '.join(keys)}) compared",
        )


def _staged(item: Field) -> str:
    return f"coalesce(s.{item.name}, '')" if item.name == "client_order_id" else f"s.{item.name}"


class Loader:
    """Loads the tables of one file."""

    def __init__(self, connection: asyncpg.Connection, file: str, mapping: Mapping, who: Who) -> None:
        self._connection = connection
        self._file = file
        self._mapping = mapping
        self._who = who
        self._accounts: dict[str, Account] = {}
        self._instruments: dict[tuple[str, str, str], int] = {}

    async def prepare(self, plans: Iterable[tuple[Plan, Checked]]) -> None:
        """Find or make the accounts and instruments of the rows. Raises ImportRefused, UnknownVenue, AccountError: then
        nothing is stored."""
        async with self._connection.transaction():
            for plan, checked in plans:
                await self._ids(Statements.of(plan.target).owners, checked.owners)

    async def position(self, part: str) -> Done:
        row = await self._connection.fetchrow(
            "SELECT done, inserted, differing, file_checksum, stored_checksum FROM imports "
            "WHERE file = $1 AND part = $2 AND mapping = $3",
            *(self._file, part, self._mapping.digest()),
        )
        return Done(*map(int, row.values())) if row is not None else Done()

    async def load(
        self, plan: Plan, checked: Checked, spool: Spool, progress: Callable[[int], None], *, again: bool = False
    ) -> Done:
        """Store a table from where an earlier run ended; ``again``: from its beginning. ``progress`` gets rows done.

        Raises asyncpg errors; what was committed stays, and the next run goes on behind it.
        """
        statements = Statements.of(plan.target)
        ids = await self._ids(statements.owners, checked.owners)
        done = Done() if again else await self.position(plan.part.name)
        progress(done.rows)
        for rows, lines in spool.batches(done.rows, BATCH):
            async with self._connection.transaction():
                await self._store(statements, ids, lines, done)
                done.rows += rows
                await self._move(plan.part.name, done)
            progress(done.rows)
        return done

    async def _ids(self, columns: tuple[str, ...], owners: dict[Owner, int]) -> list[list[int]]:
        ids: dict[str, list[int]] = {name: [] for name in columns}
        for name, symbol in owners:
            account = await self._account(name) if "account_id" in ids else None
            if account is not None:
                ids["account_id"].append(account.id)
            if "instrument_id" in ids:
                ids["instrument_id"].append(await self._instrument(account, symbol))
        return list(ids.values())

    async def _store(self, statements: Statements, ids: list[list[int]], lines: bytes, done: Done) -> None:
        await self._connection.execute(statements.stage)
        # Each row by the index of its key: the planner knows too little of a table that grows as fast as this.
        await self._connection.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
        await self._connection.copy_to_table("staged", source=io.BytesIO(lines), null="")
        status = await self._connection.execute(statements.insert, *ids)
        if statements.current:
            await self._connection.execute(statements.current, *ids)
        compared = await self._connection.fetchrow(statements.compare, *ids)
        assert compared is not None
        done.inserted += int(status.rpartition(" ")[2])
        done.differing += compared["differing"]
        done.file_checksum += int(compared["file"])
        done.stored_checksum += int(compared["stored"])

    async def _move(self, part: str, done: Done) -> None:
        await self._connection.execute(
            "INSERT INTO imports (file, part, mapping, done, inserted, differing, file_checksum, stored_checksum) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (file, part, mapping) DO UPDATE SET done = $4, "
            "inserted = $5, differing = $6, file_checksum = $7, stored_checksum = $8, updated_at = now()",
            *(self._file, part, self._mapping.digest(), done.rows, done.inserted, done.differing),
            *(done.file_checksum, done.stored_checksum),
        )

    async def _account(self, text: str | None) -> Account:
        if text is None:
            raise ImportRefused("account: rows name none: say --account NAME, or give it in the mapping")
        if text not in self._accounts:
            self._accounts[text] = await self._find_account(text)
        return self._accounts[text]

    async def _find_account(self, text: str) -> Account:
        name = Name.parse(text)
        found = await store.find(self._connection, name)
        if found is not None:
            return found
        exchange, market = self._venue()
        return await store.create(self._connection, NewAccount(name, exchange, market, enabled=False), self._who)

    def _venue(self) -> tuple[str, str]:
        exchange, market = self._mapping.defaults.get("exchange", ""), self._mapping.defaults.get("market", "")
        if not exchange or not market:
            raise ImportRefused("the exchange is not known: say --exchange and --market, or give them in the mapping")
        get_venue(exchange, market)
        return exchange, market

    async def _instrument(self, account: Account | None, symbol: str | None) -> int:
        exchange, market = (account.exchange, account.market) if account else self._venue()
        key = (exchange, market, str(symbol))
        if key not in self._instruments:
            try:
                native = get_venue(exchange, market).to_native(str(symbol))
            except ValueError as error:
                raise ImportRefused(f"symbol {symbol}: {error}") from None
            await self._connection.execute(
                "INSERT INTO instruments (exchange, market, symbol, native) VALUES ($1, $2, $3, $4) "
                "ON CONFLICT DO NOTHING",
                *(*key, native),
            )
            self._instruments[key] = await self._connection.fetchval(
                "SELECT id FROM instruments WHERE exchange = $1 AND market = $2 AND symbol = $3", *key
            )
        return self._instruments[key]

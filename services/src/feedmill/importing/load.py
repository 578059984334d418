"""Rows into PostgreSQL: batches by COPY into a staged table, then one insert; each batch with its position.

Keys are natural, so what is there already is left as it is, and a second run changes nothing. Every row of the file is
then looked for in the database and compared by a hash of its content: the sums of both sides are the checksums.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.store import Account, Name, NewAccount
from feedmill.exchanges.registry import get_venue
from feedmill.importing import ImportRefused
from feedmill.importing.mapping import Mapping
from feedmill.importing.reading import Plan, Texts
from feedmill.importing.shapes import Field, Target

BATCH = 20_000


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


def row_hash(texts: list[str]) -> int:
    """64 bits of MD5: made to find differences, not to withstand anybody."""
    digest = hashlib.md5("|".join(texts).encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _stored_text(item: Field) -> str:
    """SQL of a stored value as its text in the file."""
    if not item.column:  # The begin of a candle.
        return "(extract(epoch FROM t.open_time) * 1000000000)::bigint::text"
    value = f"trim_scale(t.{item.column})" if item.type == "numeric" else f"t.{item.column}"
    return f"coalesce({value}::text, '')"


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL of one target."""

    stage: str
    insert: str
    current: str
    compare: str

    @classmethod
    def of(cls, target: Target) -> Statements:
        owners = [name for name, has in (("account_id", target.account), ("instrument_id", target.instrument)) if has]
        hashed = _hashed(target)
        staged = ", ".join(f"{item.name} {item.type}" for item in hashed)
        values = {item.column: _staged(item) for item in hashed if item.column} | target.fixed
        columns = ", ".join((*owners, *values))
        chosen = ", ".join((*(f"s.{name}" for name in owners), *values.values()))
        keys = [f"t.{name} = s.{name}" for name in owners]
        needed = {item.column for item in hashed if item.needed} | set(target.fixed)
        keys += [f"t.{name} {'=' if name in needed else 'IS NOT DISTINCT FROM'} {values[name]}" for name in target.key]
        text = " || '|' || ".join((*(f"t.{name}::text" for name in owners), *(_stored_text(item) for item in hashed)))
        current = ""
        if target.current:
            later = ", ".join(f"{values[name]} DESC" for name in target.rank)
            ours = ", ".join(f"{target.current}.{name}" for name in target.rank)
            theirs = ", ".join(f"excluded.{name}" for name in target.rank)
            key = [name.strip() for name in target.current_key.split(",")]
            changed = ", ".join(f"{name} = excluded.{name}" for name in values if name not in key)
            first = ", ".join(f"s.{name}" for name in key)
            current = (  # Names of our own tables and columns only, here and below.
                f"INSERT INTO {target.current} ({columns}) SELECT DISTINCT ON ({first}) {chosen} FROM staged s "  # noqa: S608
                f"ORDER BY {first}, {later} ON CONFLICT ({target.current_key}) DO UPDATE SET {changed} "
                f"WHERE ({ours}) < ({theirs})"
            )
        return cls(
            f"CREATE TEMP TABLE staged (account_id integer, instrument_id integer, {staged}, hash bigint) "
            "ON COMMIT DROP",
            f"INSERT INTO {target.table} ({columns}) SELECT {chosen} FROM staged s ON CONFLICT DO NOTHING",  # noqa: S608
            current,
            "SELECT count(*) FILTER (WHERE h IS DISTINCT FROM hash) AS differing, coalesce(sum(h), 0) AS stored FROM ("  # noqa: S608
            f"SELECT s.hash, ('x' || substr(md5({text}), 1, 16))::bit(64)::bigint AS h "
            f"FROM staged s LEFT JOIN {target.table} t ON {' AND '.join(keys)}) compared",
        )


def _staged(item: Field) -> str:
    return f"coalesce(s.{item.name}, '')" if item.name == "client_order_id" else f"s.{item.name}"


def _copy(value: str | None) -> str:
    return "\\N" if value is None else value.replace("\\", "\\\\")


class Loader:
    """Loads the tables of one file."""

    def __init__(self, connection: asyncpg.Connection, file: str, mapping: Mapping, who: Who) -> None:
        self._connection = connection
        self._file = file
        self._mapping = mapping
        self._who = who
        self._accounts: dict[str, Account] = {}
        self._instruments: dict[tuple[str, str, str], int] = {}

    async def prepare(self, accounts: set[str | None], symbols: set[tuple[str | None, str]]) -> None:
        """Find or make the accounts, and the instruments of (account or None, symbol). Raises ImportRefused,
        UnknownVenue, AccountError: then nothing is stored."""
        async with self._connection.transaction():
            for name in sorted(accounts, key=str):
                await self._account(name)
            for owner, symbol in sorted(symbols, key=str):
                await self._instrument(None if owner is None else await self._account(owner), symbol)

    async def position(self, part: str) -> Done:
        row = await self._connection.fetchrow(
            "SELECT done, inserted, differing, file_checksum, stored_checksum FROM imports "
            "WHERE file = $1 AND part = $2 AND mapping = $3",
            *(self._file, part, self._mapping.digest()),
        )
        return Done(*map(int, row.values())) if row is not None else Done()

    async def load(self, plan: Plan, progress: Callable[[int], None], *, again: bool = False) -> Done:
        """Store a table from where an earlier run ended; ``again``: from its beginning. ``progress`` gets rows done.

        Raises asyncpg errors; what was committed stays, and the next run goes on behind it.
        """
        statements = Statements.of(plan.target)
        done = Done() if again else await self.position(plan.part.name)
        progress(done.rows)
        rows = itertools.islice(plan.rows(), done.rows, None)
        while batch := list(itertools.islice(rows, BATCH)):
            async with self._connection.transaction():
                await self._store(plan.target, statements, batch, done)
                await self._move(plan.part.name, done)
            progress(done.rows)
        return done

    async def _store(self, target: Target, statements: Statements, batch: list[Texts], done: Done) -> None:
        names = [item.name for item in target.fields]
        account_at = names.index("account") if target.account else -1
        symbol_at = names.index("symbol") if target.instrument else -1
        hashed = [index for index, item in enumerate(target.fields) if item.name not in ("account", "symbol")]
        lines: list[str] = []
        total = 0
        for texts in batch:
            account = await self._account(texts[account_at]) if account_at >= 0 else None
            instrument = await self._instrument(account, texts[symbol_at]) if symbol_at >= 0 else None
            owners = [str(found) for found in (account.id if account else None, instrument) if found is not None]
            content = row_hash([*owners, *(texts[index] or "" for index in hashed)])
            total += content
            whose = (str(account.id) if account else "\\N", "\\N" if instrument is None else str(instrument))
            lines.append("\t".join((*whose, *(_copy(texts[index]) for index in hashed), str(content))))
        await self._connection.execute(statements.stage)
        await self._connection.copy_to_table("staged", source=io.BytesIO(("\n".join(lines) + "\n").encode()))
        await self._connection.execute("ANALYZE staged")
        status = await self._connection.execute(statements.insert)
        if statements.current:
            await self._connection.execute(statements.current)
        compared = await self._connection.fetchrow(statements.compare)
        assert compared is not None
        done.rows += len(batch)
        done.inserted += int(status.rpartition(" ")[2])
        done.differing += compared["differing"]
        done.file_checksum += total
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

"""``feedmill import`` on a real PostgreSQL: files in the shapes people have, malformed ones, runs that were cut off."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import secrets as random
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from feedmill.accounts.audit import Who
from feedmill.cli.main import app
from feedmill.cli.migrate import migrate_sync
from feedmill.importing import load as loading
from feedmill.importing import sources
from feedmill.importing.mapping import Mapping
from feedmill.importing.reading import check, plan
from feedmill.importing.spool import Spool

MAIN = ("--account", "main", "--exchange", "binance", "--market", "Spot")
T0 = 1_769_860_800_000
Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path) -> Run:
    migrate_sync(database_url)
    kek = tmp_path / "kek"
    kek.write_text(f"k1 {base64.b64encode(random.token_bytes(32)).decode()}")
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("FEEDMILL_KEK_FILE", str(kek))
    runner = CliRunner()

    def invoke(*arguments: str, code: int = 0) -> str:
        result = runner.invoke(app, ["import", *arguments])
        assert result.exit_code == code, result.output
        assert "planted" not in result.output
        return str(result.output)

    return invoke


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    async def asked() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(asked())


TABLES = ("accounts", "credentials", "audit_log", "instruments", "fills", "orders", "order_history", "balances",
          "balance_history", "venue_candles", "imports")  # fmt: skip


def rows(url: str) -> dict[str, int]:
    return {table: ask(url, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}


def legacy(path: Path, fills: int = 50) -> Path:
    """A bot's database as they are: floats, JSON text columns, ISO texts, several tables."""
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE trades (id INTEGER, order_id INTEGER, pair TEXT, side TEXT, price REAL, amount REAL, "
               "fee REAL, fee_currency TEXT, is_maker INTEGER, ts REAL)")  # fmt: skip
    db.executemany("INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (
        (n, n // 3, "BTC/USDT" if n % 2 else "ETH/USDT", "buy" if n % 5 else "sell", 100 + n / 7, 0.1 * (n + 1),
         0.0001 * n if n % 4 else None, "BNB", n % 2, T0 / 1000 + n)
        for n in range(fills)
    ))  # fmt: skip
    db.execute("CREATE TABLE orders (id TEXT, data TEXT)")
    for n in range(4):
        states = [("NEW", 0.0), ("PARTIALLY_FILLED", 0.5), ("FILLED", 1.0)][: 1 + n]
        for step, (status, filled) in enumerate(states):
            body = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "price": 0.1, "origQty": "1.0",
                    "executedQty": filled, "status": status, "updateTime": T0 + step}  # fmt: skip
            db.execute("INSERT INTO orders VALUES (?, ?)", (f"o{n}", json.dumps(body)))
    db.execute("CREATE TABLE ohlc_1m (symbol TEXT, open_time TEXT, open, high, low, close, volume)")
    db.execute("INSERT INTO ohlc_1m VALUES ('BTC_USDT', '2026-01-31T12:00:00', 1.1, '2.50', 1, 2, 1e-8)")
    db.execute("CREATE TABLE balances (currency TEXT, total REAL, free REAL, used REAL, timestamp INTEGER)")
    db.execute("INSERT INTO balances VALUES ('USDT', 0.3, 0.1, 0.2, ?), ('USDT', 0.4, 0.4, 0, ?)", (T0, T0 + 1))
    db.execute("CREATE TABLE settings (k TEXT, v TEXT)")
    db.commit()
    db.close()
    return path


def test_a_sqlite_file_twice(run: Run, database_url: str, tmp_path: Path) -> None:
    file = str(legacy(tmp_path / "bot.db"))
    dry = json.loads(run("sqlite", file, *MAIN, "--dry-run", "-o", "json"))
    assert {(table["table"], table["target"], table["rows"]) for table in dry["tables"]} == {
        ("trades", "fills", 50), ("orders", "orders", 9), ("ohlc_1m", "candles", 1), ("balances", "balances", 2),
    }  # fmt: skip
    assert dry["notImported"] == ["settings"]
    assert set(rows(database_url).values()) == {0}
    assert "trades: 50 rows would become fills" in run("sqlite", file, *MAIN, "--dry-run")

    first = json.loads(run("sqlite", file, *MAIN, "-o", "json"))
    assert first["equal"] is True
    assert {table["table"]: table["inserted"] for table in first["tables"]} == {
        "trades": 50, "orders": 9, "ohlc_1m": 1, "balances": 2,
    }  # fmt: skip
    assert all(table["fileChecksum"] == table["storedChecksum"] != f"{0:016x}" for table in first["tables"])
    assert ask(database_url, "SELECT name, enabled, exchange FROM accounts") == [("main", False, "binance")]
    assert ask(database_url, "SELECT price, size, fee, fee_asset, maker, exchange_ns, time FROM fills f "
                             "JOIN instruments i ON i.id = instrument_id WHERE trade_id = '2'")[0][:6] == (
        Decimal("100.28571428571429"), Decimal("0.30000000000000004"), Decimal("0.0002"), "BNB", False,
        (T0 + 2000) * 10**6,
    )  # fmt: skip
    assert ask(database_url, "SELECT order_id, status, filled, terminal FROM orders ORDER BY 1") == [
        ("o0", "new", Decimal(0), False), ("o1", "partially_filled", Decimal("0.5"), False),
        ("o2", "filled", Decimal(1), True), ("o3", "filled", Decimal(1), True),
    ]  # fmt: skip
    assert ask(database_url, "SELECT total, free, locked FROM balances") == [
        (Decimal("0.4"), Decimal("0.4"), Decimal(0))
    ]
    assert ask(database_url, "SELECT interval, high, volume, open_time::text FROM venue_candles") == [
        ("1m", Decimal("2.5"), Decimal("0.00000001"), "2026-01-31 12:00:00+00")
    ]
    before = rows(database_url)
    second = json.loads(run("sqlite", file, *MAIN, "-o", "json"))
    assert second["equal"] is True
    assert {table["inserted"] for table in second["tables"]} == {0}
    sums = [[table["fileChecksum"] for table in told["tables"]] for told in (first, second)]
    assert sums[0] == sums[1]
    assert rows(database_url) == before


def test_what_is_there_with_other_content_is_left_and_told(run: Run, database_url: str, tmp_path: Path) -> None:
    file = str(legacy(tmp_path / "bot.db"))
    run("sqlite", file, *MAIN)
    ask(database_url, "UPDATE fills SET price = price + 1 WHERE trade_id IN ('3', '4') RETURNING 1")
    told = run("sqlite", file, *MAIN, code=1)
    assert "trades: 50 rows as fills, 0 new, 48 there already, 2 differing" in told
    assert "differ from what was there" in told


async def test_a_run_that_was_broken_off_goes_on(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(migrate_sync, database_url)
    monkeypatch.setattr(loading, "BATCH", 10)
    file = legacy(tmp_path / "bot.db")
    mapping = Mapping({"account": "main", "exchange": "binance", "market": "Spot"})
    [trades] = [part for part in sources.sqlite(file) if part.name == "trades"]
    target = mapping.target("trades")
    assert target is not None
    made = plan(trades, target, mapping)
    seen: list[int] = []

    def breaks(done: int) -> None:
        seen.append(done)
        if done == 30:
            raise ConnectionError("cut")

    connection = await asyncpg.connect(database_url)

    async def load(progress: Callable[[int], None]) -> loading.Done:
        with Spool() as spool:
            checked = check(made, spool)
            return await loading.Loader(connection, "f", mapping, Who("t", "t")).load(made, checked, spool, progress)

    try:
        with pytest.raises(ConnectionError, match="cut"):
            await load(breaks)
        assert await connection.fetchval("SELECT count(*) FROM fills") == 30
        rest: list[int] = []
        done = await load(rest.append)
        assert (seen, rest) == ([0, 10, 20, 30], [30, 40, 50])
        assert (done.rows, done.inserted, done.equal) == (50, 50, True)
    finally:
        await connection.close()


def test_a_pickle_with_secrets_and_a_mapping(run: Run, database_url: str, tmp_path: Path) -> None:
    content = {
        "api_keys": {
            "Main Account": {"exchange": "binance", "market": "Spot", "key": "planted-key", "secret": "planted-secret"}
        },
        "deals": [
            {"number": 1, "order": 5, "px": Decimal("1.10"), "q": 0.1, "dir": "buy", "when": T0},
            {"number": 1, "order": 6, "px": Decimal("1.10"), "q": 0.1, "dir": "sell", "when": T0},
        ],
    }
    file = tmp_path / "state.pkl"
    file.write_bytes(pickle.dumps(content))
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        "account: main-account\ntables:\n  deals:\n    target: fills\n"
        "    fields: {trade_id: number, price: px, size: q, side: dir, time: when}\n    values: {symbol: BTC-USDT}\n"
    )
    assert "(secret)" in run("pickle", str(file), "-m", str(mapping), "--dry-run")
    told = json.loads(run("pickle", str(file), "-m", str(mapping), "-o", "json"))
    assert (told["equal"], told["secrets"]["stored"]) == (True, ["default/main-account"])
    # A self-trade is two fills.
    assert ask(database_url, "SELECT trade_id, order_id, side FROM fills ORDER BY 2") == [("1", "5", 1), ("1", "6", 2)]
    assert ask(database_url, "SELECT field FROM credentials ORDER BY 1") == [("apiKey",), ("apiSecret",)]
    for table in TABLES:
        assert "planted" not in str(ask(database_url, f"SELECT t::text FROM {table} t"))
    again = json.loads(run("pickle", str(file), "-m", str(mapping), "-o", "json"))
    assert again["secrets"] == {"stored": [], "equal": ["default/main-account"], "differing": []}
    content["api_keys"]["Main Account"]["secret"] = "planted-other"  # type: ignore[call-overload, index]
    file.write_bytes(pickle.dumps(content))
    assert "secrets differ: default/main-account" in run("pickle", str(file), "-m", str(mapping), code=1)


def test_secrets_beside_rows_that_are_refused(run: Run, database_url: str, tmp_path: Path) -> None:
    key = {"account": "main", "exchange": "binance", "market": "Spot", "key": "planted-key", "secret": "planted-secret"}
    file = tmp_path / "state.pkl"
    file.write_bytes(pickle.dumps({"api_keys": [key], "fills": [_fill(symbol="A-B-C-D")]}))
    assert "A-B-C-D" in run("pickle", str(file), *MAIN, code=2)
    assert set(rows(database_url).values()) == {0}


def test_texts_that_copy_would_read_otherwise_and_json_that_is_none(
    run: Run, database_url: str, tmp_path: Path
) -> None:
    """Backslashes, letters of every alphabet, rows that stand twice, and NaN, which Python writes into JSON."""
    ids = ["\\N", "\\.", "a\\tb", "ж-日本-é", "q\"'|", "twice", "twice"]
    file = tmp_path / "bot.db"
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE fills (id TEXT, info TEXT)")
    for id_ in ids:
        body = {
            "order": "1",
            "SYMBOL": "BTC/USDT",
            "side": "sell",
            "price": 1.5,
            "amount": 2,
            "ts": T0,
            "pnl": float("nan"),
        }
        db.execute("INSERT INTO fills VALUES (?, ?)", (id_, json.dumps(body)))
    db.commit()
    db.close()
    for inserted in (6, 0):
        told = json.loads(run("sqlite", str(file), *MAIN, "-o", "json"))
        [table] = told["tables"]
        assert (told["equal"], table["rows"], table["inserted"]) == (True, 7, inserted)
    stored = [row[0] for row in ask(database_url, "SELECT trade_id FROM fills")]
    assert sorted(stored) == sorted(dict.fromkeys(ids)), "in whatever order the server took them"


def _fill(**changes: Any) -> dict[str, Any]:
    row = {"id": 1, "order_id": 2, "symbol": "BTC-USDT", "side": "buy", "price": 1.5, "amount": 2, "ts": T0}
    return row | changes


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("ran",))


def _damaged(path: Path) -> None:
    legacy(path, 3000)
    data = bytearray(path.read_bytes())
    data[8192:40960] = b"\xff" * 32768
    path.write_bytes(bytes(data))


MALFORMED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no sqlite": ("sqlite", lambda p: p.write_text("id,price\n1,2\n"), "is not a sqlite 3 file"),
    "damaged pages": ("sqlite", _damaged, "is damaged"),
    "cut off": ("sqlite", lambda p: p.write_bytes(legacy(p, 3000).read_bytes()[:20_000]), "is damaged"),
    "no known table": ("sqlite", lambda p: sqlite3.connect(p).execute("CREATE TABLE x (a)"), "no table is known"),
    "a column missing": ("sqlite", lambda p: sqlite3.connect(p).execute("CREATE TABLE fills (id, price)"),
                         "fills: no column is known for symbol"),
    "no pickle": ("pickle", lambda p: p.write_bytes(b"\x00\x01\x02"), "is not a whole pickle"),
    "a pickle cut off": ("pickle", lambda p: p.write_bytes(pickle.dumps([_fill()])[:-9]), "is not a whole pickle"),
    "a pickle that runs": ("pickle", lambda p: p.write_bytes(pickle.dumps([_fill(), Evil()])),
                           "asks for builtins.print"),
    "not a number": ("pickle", lambda p: p.write_bytes(pickle.dumps([_fill(), _fill(price=float("nan"))])),
                     "fills, row 2: price: 'nan' is not a finite number"),
    "a value missing": ("pickle", lambda p: p.write_bytes(pickle.dumps([_fill(side=None)])),
                        "fills, row 1: side: is missing: name its column"),
    "no time": ("pickle", lambda p: p.write_bytes(pickle.dumps([_fill(ts="soon")])),
                "row 1: time: 'soon' is not a time"),
    "a symbol the venue has not": ("pickle", lambda p: p.write_bytes(pickle.dumps([_fill(symbol="A-B-C-D")])),
                                   "A-B-C-D"),
    "rows of numbers": ("pickle", lambda p: p.write_bytes(pickle.dumps([1, 2])), "row 1: is a int, not a dict"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files(run: Run, database_url: str, tmp_path: Path, case: str) -> None:
    kind, make, message = MALFORMED[case]
    file = tmp_path / "fills.file"
    make(file)
    told = run(kind, str(file), *MAIN, code=2)
    assert message in told.replace("\n", " ")
    assert len(told.strip().splitlines()) == 1
    assert set(rows(database_url).values()) == {0}

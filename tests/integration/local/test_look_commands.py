"""feedmill query, psql, tail, status and doctor against real servers."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import redis

from feedmill.cli.query import database
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.local.embedded.files import DirLock
from feedmill.local.embedded.server import EmbeddedServer
from feedmill.shared.events import EventBlock, Trade, encode
from feedmill.shared.keys import ShardRef

SOURCES = Path(__file__).parents[3] / "services" / "src"
SHARD = ShardRef("default", "spot", 0)


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
    return kept | {"PYTHONPATH": str(SOURCES), "COLUMNS": "120", **more}


def feedmill(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "feedmill.cli.main", *arguments]
    return subprocess.run(
        command, env=environment(**more), input=stdin, capture_output=True, text=True, timeout=250, check=False
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with a few rows; its PostgreSQL is stopped."""
    folder = tmp_path_factory.mktemp("look")
    server = EmbeddedPostgres(folder / "postgres", fsync=False)
    server.start()

    async def fill() -> None:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE t (x int, price numeric, at timestamptz, levels numeric[], note text)")
        await connection.execute(
            "INSERT INTO t VALUES (1, 0.10000, '2026-01-02T03:04:05Z', '{1.10,2}', 'a,b'), (2, NULL, NULL, NULL, NULL)"
        )
        await connection.close()

    asyncio.run(fill())
    server.stop()
    yield folder
    server.stop()


def test_query_starts_and_stops_the_server(data_dir: Path) -> None:
    done = feedmill("query", "--data-dir", str(data_dir), "select * from t order by x")
    assert done.returncode == 0, done.stderr
    assert list(csv.reader(io.StringIO(done.stdout))) == [
        ["x", "price", "at", "levels", "note"],
        ["1", "0.10000", "2026-01-02T03:04:05+00:00", '["1.10", "2"]', "a,b"],
        ["2", "", "", "", ""],
    ]
    where = ("--data-dir", str(data_dir))
    as_json = feedmill("query", "-o", "json", *where, "-", stdin="select x, price from t order by x")
    assert json.loads(as_json.stdout) == [{"x": 1, "price": "0.10000"}, {"x": 2, "price": None}]
    table = feedmill("query", "-o", "table", "--limit", "1", *where, "select x, note from t order by x")
    assert "a,b" in table.stdout
    assert "1 row (the first 1 are shown: --limit shows more)" in table.stdout
    assert not (data_dir / "postgres" / "pgdata" / "postmaster.pid").exists()


def test_query_while_the_server_runs(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir / "postgres", fsync=False) as server:
        done = feedmill("query", "--data-dir", str(data_dir), "select count(*) from t")
        assert done.stdout == "count\n2\n", done.stderr
        by_url = feedmill("query", "--data-dir", "/nonexistent", "select count(*) from t", DATABASE_URL=server.url)
        assert by_url.stdout == "count\n2\n", by_url.stderr
        assert server.running


def test_the_server_of_a_running_manager_is_used_at_once(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    lock = DirLock(data_dir, "data folder")
    assert not DirLock.is_held(data_dir)
    with EmbeddedPostgres(data_dir / "postgres", fsync=False) as server:
        lock.acquire(timeout=1.0)
        try:
            assert DirLock.is_held(data_dir)
            # Without trying to start one, which waits for whoever has the folder.
            monkeypatch.delattr(EmbeddedServer, "start")
            with database(data_dir) as (url, _):
                assert url == server.url
        finally:
            lock.release()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("delete from t", "cannot execute DELETE in a read-only transaction"),
        ("commit; drop table t", "cannot insert multiple commands"),
        ("select nope from t", 'column "nope" does not exist'),
    ],
)
def test_query_cannot_change_anything_and_tells_errors(data_dir: Path, sql: str, said: str) -> None:
    done = feedmill("query", "--data-dir", str(data_dir), sql)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_psql_knows_the_way(data_dir: Path) -> None:
    done = feedmill("psql", "--data-dir", str(data_dir), "--", "-XAtc", "select sum(x) from t")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def start_tail(*arguments: str, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "feedmill.cli.main", "tail", *arguments]
    return subprocess.Popen(command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def emit(server: EmbeddedRedis, number: int) -> None:
    trade = Trade("BTC-USDT", number, "100.5", "1", 1, 1_760_000_000_000_000_000, 1)
    other = Trade("ETH-USDT", number, "1", "1", 1, 1, 1)
    with redis.Redis.from_url(server.url) as client:
        client.xadd(SHARD.events, {"n": number, "e": encode(EventBlock(trades=[trade, other]))})


def test_tail_prints_from_now_on_and_filters(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        emit(server, 1)
        tail = start_tail("--data-dir", str(tmp_path), "--symbol", "BTC-USDT", "--json", "--count", "2")
        try:
            with redis.Redis.from_url(server.url) as client:
                # It reads, once a client of its name waits in XREAD.
                while not any(c["name"] == "feedmill-tail" and c["cmd"] == "xread" for c in client.client_list()):
                    assert tail.poll() is None
            emit(server, 2)
            emit(server, 3)
            out, err = tail.communicate(timeout=60)
        finally:
            tail.kill()
        assert tail.returncode == 0, err
        found = [json.loads(text) for text in out.splitlines()]
        assert [(item["symbol"], item["id"], item["price"]) for item in found] == [
            ("BTC-USDT", 2, "100.5"),
            ("BTC-USDT", 3, "100.5"),
        ]


def test_tail_ends_quietly_on_interrupt_and_clearly_without_redis(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        tail = start_tail("--data-dir", str(tmp_path))
        assert tail.stderr is not None
        assert tail.stderr.readline() == "no events stream yet: waiting\n"
        tail.send_signal(signal.SIGINT)
        out, err = tail.communicate(timeout=60)
        assert (tail.returncode, out, err) == (0, "", "")
        url = server.url
    done = feedmill("tail", REDIS_URL=url)
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "is feedmill up running?" in done.stderr
    assert (tmp_path / "redis" / "password").read_text().strip() not in done.stderr


def test_doctor_checks_the_servers_for_real(tmp_path: Path) -> None:
    done = feedmill("doctor", "--json", "--data-dir", str(tmp_path))
    found = {item["what"]: item for item in json.loads(done.stdout)}
    assert found["embedded Redis"]["grade"] == "ok"
    assert found["embedded PostgreSQL"]["grade"] == "ok"
    assert found["Python"]["grade"] == "ok"
    assert done.returncode == (1 if any(item["grade"] == "fail" for item in found.values()) else 0)
    assert list(tmp_path.iterdir()) == []


def test_doctor_fails_with_a_remedy(tmp_path: Path) -> None:
    manifest = tmp_path / "feed.yaml"
    manifest.write_text(
        "apiVersion: feedmill.dev/v1alpha1\nkind: ExchangeFeed\nmetadata: {name: spot}\nspec:\n"
        "  pipelineRef: {name: main}\n  exchange: {name: binance, market: Spot, endpoints: "
        '{stream: "ws://127.0.0.1:1", rest: "http://127.0.0.1:1"}}\n'
        "  instruments: {symbols: [BTC-USDT]}\n  channels: [{name: Trades}]\n"
    )
    with EmbeddedRedis(tmp_path / "redis", config={"maxmemory-policy": "allkeys-lru"}) as server:
        done = feedmill("doctor", "-f", str(manifest), REDIS_URL=server.url, PG_BIN="/nonexistent")
    assert done.returncode == 1
    assert "maxmemory-policy allkeys-lru" in done.stdout
    assert "PG_BIN=/nonexistent holds no postgres and initdb" in done.stdout
    assert "127.0.0.1:1: nothing listens there (used by default/spot)" in done.stdout
    assert "to mend" in done.stdout

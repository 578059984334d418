"""What ``kubectl feedmill gaps`` asks inside a pod, asked of a real database by the real ``feedmill query``."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
import yaml

from feedmill_operator.plugin.gaps import statement

PIPELINE = {
    "apiVersion": "feedmill.dev/v1alpha1",
    "kind": "FeedPipeline",
    "metadata": {"name": "main", "namespace": "trading"},
    "spec": {
        "redis": {"urlSecretRef": {"name": "redis", "key": "url"}},
        "postgres": {"urlSecretRef": {"name": "postgres", "key": "url"}},
    },
}
ROWS = [
    ("a", "trading.btc.0", 1, "open", "[5,8)", 100),
    ("b", "trading.btc.0", 1, "closed", "", 200),
    ("c", "trading.btc.0", None, "closed", "", 50),
    ("d", "trading.btc-spot.0", None, "open", "[1,3),[7,8)", 300),
]


def feedmill(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
    command = [sys.executable, "-m", "feedmill.cli.main", *arguments]
    return subprocess.run(command, env=kept | more, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path: Path, database_url: str) -> Path:
    """As in a pod: config/resources.yaml and secrets/<secret>/<key>; the database holds ROWS."""
    done = feedmill("migrate", DATABASE_URL=database_url)
    assert done.returncode == 0, done.stderr

    async def fill() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "INSERT INTO instruments (id, exchange, market, symbol, native) OVERRIDING SYSTEM VALUE "
            "VALUES (1, 'binance', 'Spot', 'BTC-USDT', 'BTCUSDT')"
        )
        await connection.executemany(
            "INSERT INTO gaps"
            " (id, shard, instrument_id, channel, cause, state, missing, from_ns, revision, detected_ns)"
            " VALUES ($1, $2, $3, 'Trades', 'sequence', $4, ('{' || $5::text || '}')::int8multirange, 1, 1, $6)",
            ROWS,
        )
        await connection.close()

    asyncio.run(fill())
    for name, url in (("redis", "redis://127.0.0.1:1"), ("postgres", database_url)):
        (tmp_path / "secrets" / name).mkdir(parents=True)
        (tmp_path / "secrets" / name / "url").write_text(url)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "resources.yaml").write_text(yaml.safe_dump(PIPELINE))
    return tmp_path


def ask(folder: Path, sql: str, *more: str) -> subprocess.CompletedProcess[str]:
    config, secrets = str(folder / "config" / "resources.yaml"), str(folder / "secrets")
    return feedmill("query", "-o", "json", "--config", config, "--secrets-dir", secrets, *more, sql)


def test_open_gaps_and_new_ones(folder: Path) -> None:
    done = ask(folder, statement(None, "trading", 150, 10), "--pipeline", "trading/main")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(row["shard"], row["state"], row["detected_ns"]) for row in found] == [
        ("trading.btc-spot.0", "open", 300),
        ("trading.btc.0", "open", 100),
        ("trading.btc.0", "closed", 200),
    ]
    assert [(row["symbol"], row["missing"]) for row in found] == [(None, 3), ("BTC-USDT", 3), ("BTC-USDT", 0)]


def test_of_one_feed_and_not_of_one_whose_name_begins_alike(folder: Path) -> None:
    found = json.loads(ask(folder, statement(["btc"], "trading", 0, 10)).stdout)
    assert [row["detected_ns"] for row in found] == [100, 200, 50]
    assert len(json.loads(ask(folder, statement(None, "trading", 0, 1)).stdout)) == 2, "one more than the limit"


def test_a_pipeline_that_the_files_do_not_hold(folder: Path) -> None:
    done = ask(folder, "select 1", "--pipeline", "trading/mian")
    assert done.returncode == 2
    assert "--pipeline trading/mian: did you mean trading/main?" in done.stderr


def test_a_secret_that_is_missing_is_named_and_no_value_shown(folder: Path, database_url: str) -> None:
    (folder / "secrets" / "postgres" / "url").unlink()
    done = ask(folder, "select 1")
    assert done.returncode == 2
    assert "Secret 'postgres', key 'url'" in done.stderr
    assert database_url not in done.stderr

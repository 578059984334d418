"""``feedmill maintain``: run, report, forget, on a database and a Redis of the environment."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis
from typer.testing import CliRunner

from feedmill.cli.main import app
from feedmill.general.maintenance import record
from feedmill.local.embedded import EmbeddedRedis
from feedmill.shared.clock import now_ns
from feedmill.shared.keys import ShardRef, feeds_key
from feedmill.shared.partitions import DAY_NS

MANIFEST = """apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec: {redis: {managed: {}}, postgres: {managed: {}}, retention: {deadLetters: 2d}}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: here}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  instruments: {symbols: [BTC-USDT]}
  channels: [{name: Trades}]
"""
GONE = ShardRef("default", "gone", 0)


class Commands:
    def __init__(self, files: list[str], database_url: str) -> None:
        self._files = files
        self._database_url = database_url

    def __call__(self, *arguments: str, files: bool = True, answer: str = "") -> Any:
        """Exit code and output of ``feedmill maintain``."""
        done = CliRunner().invoke(app, ["maintain", *arguments, *(self._files if files else [])], input=answer)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    def execute(self, statement: str, *values: Any) -> Any:
        async def work() -> Any:
            connection = await asyncpg.connect(self._database_url)
            try:
                return await connection.fetch(statement, *values)
            finally:
                await connection.close()

        return asyncio.run(work())


@pytest.fixture
def maintain(migrated: str, redis_server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    (tmp_path / "feed.yaml").write_text(MANIFEST)
    monkeypatch.setenv("DATABASE_URL", migrated)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    return Commands(["-c", str(tmp_path / "feed.yaml")], migrated)


@pytest.fixture
def client(redis_server: EmbeddedRedis) -> Any:
    made = redis.Redis.from_url(redis_server.url)
    yield made
    made.close()


def letters(maintain: Commands, *ages: int) -> None:
    for number, age in enumerate(ages):
        maintain.execute(
            "INSERT INTO dead_letters VALUES ('default.btc.0', 's', $1, 0, 0, $2, 'bad_json', '', '1', '')",
            *(number, now_ns() - age * DAY_NS),
        )


def test_a_dry_run_tells_what_the_run_then_does(maintain: Commands) -> None:
    letters(maintain, 3, 1)
    code, said = maintain("run", "--dry-run")
    assert code == 0
    assert said.startswith("dry run: nothing was changed; a run now would do this\npartitions made: 4 of book_")
    assert "aged out: 1 row of dead_letters" in said
    assert maintain.execute("SELECT count(*) FROM dead_letters")[0][0] == 2
    assert maintain.execute("SELECT count(*) FROM maintenance_runs")[0][0] == 0
    code, done = maintain("run")
    assert code == 0
    assert done.splitlines()[:4] == said.splitlines()[1:5]
    assert maintain.execute("SELECT batch FROM dead_letters")[0][0] == 1
    code, again = maintain("run", "-o", "json")
    document = json.loads(again)
    assert (code, document["outcome"], document["dryRun"]) == (0, "succeeded", False)
    assert not {"made", "dropped", "aged"} & set(document)


def test_the_report_is_of_the_last_run(maintain: Commands) -> None:
    code, said = maintain("report", files=False)
    assert (code, said.split(":")[0]) == (0, "no run yet")
    maintain.execute("CREATE INDEX again ON gaps (detected_ns)")
    assert maintain("run")[0] == 0
    code, said = maintain("report", files=False)
    assert code == 0
    assert ", succeeded\npartitions made: 4 of book_snapshots" in said
    finding = "  duplicate_index  again: on gaps: the same as gaps_by_time\n      DROP INDEX again"
    assert f"findings: 1\n{finding}" in said
    assert "TABLE" in said
    [run] = json.loads(maintain("report", "-o", "json", files=False)[1])
    assert run["outcome"] == "succeeded"
    assert run["report"]["findings"][0]["kind"] == "duplicate_index"


def test_what_fails_is_told_and_the_rest_is_done(
    maintain: Commands, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.stop()
    code, said = maintain("run")
    assert code == 1
    assert "failed: streams: ConnectionRefusedError" in said
    assert "partitions made: 4 of trades" in said
    # Without one at all (a data folder that has none) there is nothing to look at.
    monkeypatch.delenv("REDIS_URL")
    code, said = maintain("run", "--data-dir", "/nonexistent")
    assert (code, "failed" in said) == (0, False)


def test_two_runs_at_a_time(maintain: Commands, migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedmill.cli.maintain.PATIENCE", 0.05)

    async def hold() -> Any:
        connection = await asyncpg.connect(migrated)
        await record.begin(connection, 1.0)
        return connection

    with asyncio.Runner() as runner:
        other = runner.run(hold())
        code, said = maintain("run")
        runner.run(other.close())
    assert code == 1
    assert said == "another run of maintenance is under way on this database: it does the same, wait for its end\n"
    assert maintain("run")[0] == 0


def lay_down(client: Any) -> None:
    client.xadd(GONE.raw, {"b": b"never dispatched"})
    client.hset(feeds_key(("default", "main")), "default.gone", f"1 {now_ns() - 8 * DAY_NS}")


def test_streams_of_a_feed_that_is_gone_are_given_up_by_hand(maintain: Commands, client: Any) -> None:
    lay_down(client)
    code, said = maintain("forget", "default/gone", answer="n\n")
    assert code == 1
    assert "remove the streams of default/gone from Redis for good?" in said
    assert client.exists(GONE.raw)
    code, said = maintain("forget", "default/gone", answer="y\n")
    assert code == 0
    assert "default/gone: removed, " in said
    assert not client.exists(GONE.raw)
    [row] = maintain.execute("SELECT shard, cause FROM gaps")
    assert tuple(row) == (str(GONE), "forgotten")
    assert maintain("forget", "default/gone", "--yes") == (1, "default/gone: Redis holds nothing of it\n")


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        ("default/here", "default/here is in the manifests: take it out of them first, or leave it\n"),
        ("gone", "'gone' is not a feed: write NAMESPACE/FEED, such as default/btc\n"),
        ("default/*", "'default/*' is not a feed: write NAMESPACE/FEED, such as default/btc\n"),
    ],
)
def test_what_cannot_be_forgotten(maintain: Commands, client: Any, feed: str, said: str) -> None:
    client.xadd(ShardRef("default", "here", 0).raw, {"b": b"x"})
    assert maintain("forget", feed, "--yes") == (2, said)
    assert client.exists(ShardRef("default", "here", 0).raw)


def test_a_feed_that_a_process_works_on_is_left_alone(maintain: Commands, client: Any) -> None:
    lay_down(client)
    client.set(GONE.lease("distributor"), "somebody/1", px=60_000)
    assert maintain("forget", "default/gone", "--yes") == (1, "default/gone: a process works on it: stop it first\n")
    assert client.exists(GONE.raw)


def test_a_schema_that_is_behind_is_named(
    database_url: str, redis_server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "feed.yaml").write_text(MANIFEST)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    done = CliRunner().invoke(app, ["maintain", "run", "-c", str(tmp_path / "feed.yaml")])
    assert done.exit_code == 1
    assert "run feedmill migrate" in done.output

"""Dead letters of one version, driven again under another: the rows are as if nothing had ever failed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import pytest

from feedmill.shared.events import Flag

TRADES, TICKERS, MINUTES = 42, 30, 7
BAD_TRADES = (3, 4, 17, 41)
"""Two together, one alone, and the last one: no later trade has told that it is missing."""
BAD_TICKERS = (2, 5, 29)
BAD_MINUTE = 2
TABLES = {
    "trades": "trade_id, time, price, size, side, exchange_ns, receive_ns, first_id, last_id, venue_id",
    "tickers": "day, seq, bid, bid_size, ask, ask_size, exchange_ns, receive_ns, flags",
    "candles": "interval, open_time, open, high, low, close, volume, quote_volume, trades, first_id, last_id, complete,"
    " venue_agrees",
    "venue_candles": "interval, open_time, open, high, low, close, volume, trades, closed, exchange_ns, receive_ns",
}
LETTERS = "SELECT count(*) FROM dead_letters"


def poison(frames: Any) -> set[bytes]:
    bad = {frames.trade(number) for number in BAD_TRADES} | {frames.ticker(number) for number in BAD_TICKERS}
    return bad | {frames.kline(BAD_MINUTE)}


async def flow(world: Any, frames: Any) -> None:
    """Seven minutes of a market."""
    await world.begin()
    for minute in range(MINUTES):
        await world.send(*(frames.trade(number) for number in range(6 * minute, 6 * minute + 6)))
        await world.send(frames.kline(minute))
        low = TICKERS * minute // MINUTES
        await world.send(*(frames.ticker(number) for number in range(low, TICKERS * (minute + 1) // MINUTES)))


async def tables(world: Any) -> dict[str, list[tuple[Any, ...]]]:
    return {name: await world.rows(f"SELECT {columns} FROM {name} ORDER BY 1, 2") for name, columns in TABLES.items()}


async def feedmill(world: Any, *arguments: str) -> tuple[int, str]:
    """``feedmill dlq`` as a user runs it: (exit code, output)."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "DATABASE_URL"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feedmill.cli.main", "dlq", *arguments,
        env=own | {"DATABASE_URL": world.database_url, "REDIS_URL": world.redis.url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def redrive(world: Any, *arguments: str) -> tuple[int, Any]:
    code, output = await feedmill(world, "redrive", "-c", str(world.manifest), "-o", "json", *arguments)
    return code, json.loads(output)


async def until_finished(world: Any) -> None:
    """Every minute but the last (nothing after it proves it) is complete, and compared with the venue's."""
    await world.until("SELECT count(*) FROM candles WHERE interval = '1m' AND complete AND venue_agrees", MINUTES - 2)
    # The trades that prove a minute may have come when the longer candles were made already: then these follow.
    rolled_up = "SELECT (SELECT sum(trades) FROM candles WHERE interval = '5m') = (SELECT count(*) FROM trades)"
    await world.until(rolled_up, True)


async def never_failed(world: Any, frames: Any) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of a run of the right version, then everything empty again."""
    world.start()
    await flow(world, frames)
    await world.until("SELECT count(*) FROM trades", TRADES)
    await world.until("SELECT count(*) FROM tickers", TICKERS)
    await until_finished(world)
    await world.stop()
    found = await tables(world)
    assert await world.value(LETTERS) == 0
    await world.client.flushall()
    world._n = 0
    await world.rows(
        "TRUNCATE trades, tickers, book_snapshots, candles, venue_candles, gaps, dead_letters, applied, instruments,"
        " instrument_versions CASCADE"
    )
    return found


async def test_what_a_version_could_not_read_is_stored_by_the_next_one(world: Any, frames: Any) -> None:
    right = await never_failed(world, frames)
    bad = poison(frames)
    world.start(bad.__contains__)
    await flow(world, frames)
    await world.until(LETTERS, len(bad))
    await world.until("SELECT count(*) FROM trades", TRADES - len(BAD_TRADES))
    await world.until("SELECT count(*) FROM gaps WHERE state = 'open'", 2)
    await world.stop()

    # The next version is rolled out; its mapper reads them.
    world.start()
    code, said = await redrive(world, "--all")
    assert (code, said["states"]) == (0, {"stored": len(bad)}), said
    assert said["rows"] == {"trades": len(BAD_TRADES), "tickers": len(BAD_TICKERS), "venue_candles": 1}
    assert said["note"] == ""
    assert await world.value(LETTERS) == 0
    await until_finished(world)
    # The distributor has been told too: it closes its gaps itself, and emits the trades to other readers.
    await world.until("SELECT count(*) FROM gaps WHERE state = 'closed' AND repaired_by = 'late' AND revision > 1", 2)
    assert await world.value("SELECT count(*) FROM gaps WHERE state = 'open' OR NOT isempty(missing)") == 0
    assert {number for number, _ in await world.emitted()} >= set(BAD_TRADES)
    assert await tables(world) == right
    late = await world.rows("SELECT trade_id FROM trades WHERE flags & $1 <> 0 ORDER BY 1", int(Flag.LATE))
    assert [number for (number,) in late] == list(BAD_TRADES)

    code, said = await redrive(world, "--all")
    assert (code, said["letters"]) == (0, [])
    assert await tables(world) == right
    assert not any(task.done() for task in world.tasks)


async def test_what_was_stored_meanwhile_is_not_doubled_and_two_at_once_are_one(world: Any, frames: Any) -> None:
    """The other replica's frame came through, or somebody put the letter back: its rows are met as themselves."""
    bad = poison(frames)
    world.start(bad.__contains__)
    await flow(world, frames)
    await world.until(LETTERS, len(bad))
    await world.until("SELECT count(*) FROM trades", TRADES - len(BAD_TRADES))
    await world.stop()
    kept = await world.rows("SELECT * FROM dead_letters")
    answers = await asyncio.gather(redrive(world, "--all"), redrive(world, "--all"))
    assert sum(said["rows"].get("trades", 0) for _, said in answers) == len(BAD_TRADES)
    assert sum(said["states"].get("stored", 0) for _, said in answers) == len(bad)
    # A distributor of the old version was told of the trades: it puts them aside once more.
    world.start(bad.__contains__)
    await world.until(LETTERS, len(BAD_TRADES))
    await until_finished(world)  # What was driven while none was there to finish its candles.
    before = await tables(world)
    for row in kept:
        marks = ", ".join(f"${place}" for place in range(1, len(row) + 1))
        await world.rows(f"INSERT INTO dead_letters VALUES ({marks}) ON CONFLICT DO NOTHING", *row)
    code, said = await redrive(world, "--all")
    assert (code, said["rows"]) == (0, {})
    assert sum(letter["known"] for letter in said["letters"]) == len(bad) + len(BAD_TRADES)
    await world.send(b"no json")
    await world.until("SELECT count(*) FROM dead_letters WHERE session = 'r0-000000000001aaaaaa'", 1)
    assert await world.value(LETTERS) == 1, "it was not told again of what was there"
    assert await tables(world) == before


async def test_the_distributor_that_cannot_be_told_is_said(world: Any, frames: Any) -> None:
    bad = poison(frames)
    world.start(bad.__contains__)
    await flow(world, frames)
    await world.until(LETTERS, len(bad))
    await world.until("SELECT count(*) FROM trades", TRADES - len(BAD_TRADES))
    await world.until("SELECT count(*) FROM gaps WHERE state = 'open'", 2)
    await world.stop()
    world.redis.stop()
    code, said = await redrive(world, "--all")
    assert (code, said["rows"]["trades"]) == (0, len(BAD_TRADES))
    assert "the distributor could not be told" in said["note"]
    assert await world.rows("SELECT DISTINCT state, repaired_by, isempty(missing) FROM gaps") == [
        ("closed", "redrive", True)
    ]


async def test_what_fails_again_keeps_its_letter_with_the_new_reason(world: Any, frames: Any) -> None:
    world.start()
    await world.begin()
    await world.send(b"no json", frames.trade(1), b'{"stream":"btcusdt@trade","data":{"e":"trade"}}', frames.trade(2))
    await world.until(LETTERS, 2)
    await world.until("SELECT count(*) FROM trades", 2)
    await world.rows("UPDATE dead_letters SET reason = 'older_reason', code_version = '0.0.1'")
    before = await world.rows("SELECT shard, session, batch, idx, receive_ns, payload FROM dead_letters ORDER BY idx")
    code, said = await redrive(world, "--reason", "older_reason")
    assert (code, said["states"], said["rows"]) == (1, {"failed": 2}, {})
    rows = await world.rows("SELECT reason, code_version FROM dead_letters ORDER BY idx")
    assert all(reason != "older_reason" and version != "0.0.1" for reason, version in rows), rows
    after = await world.rows("SELECT shard, session, batch, idx, receive_ns, payload FROM dead_letters ORDER BY idx")
    assert after == before


async def test_events_that_postgresql_refused_are_stored_once_it_takes_them(world: Any, frames: Any) -> None:
    await world.rows("ALTER TABLE trades ADD CONSTRAINT nobody_wants_5 CHECK (trade_id <> 5)")
    world.start()
    await world.begin()
    await world.send(*(frames.trade(number) for number in range(10)))
    await world.until(LETTERS, 1)
    await world.until("SELECT count(*) FROM trades", 9)
    code, said = await redrive(world, "--all")
    assert (code, said["states"]) == (1, {"failed": 1})
    assert "nobody_wants_5" in said["letters"][0]["detail"]
    assert await world.value("SELECT reason FROM dead_letters") == "trade_refused"
    await world.rows("ALTER TABLE trades DROP CONSTRAINT nobody_wants_5")
    code, said = await redrive(world, "--all")
    assert (code, said["rows"]) == (0, {"trades": 1})
    assert await world.rows("SELECT trade_id FROM trades ORDER BY 1") == [(number,) for number in range(10)]
    assert await world.value("SELECT sum(trades) FROM candles WHERE interval = '1m'") == 10


async def test_a_change_of_a_book_stays_until_it_is_dropped(world: Any, frames: Any) -> None:
    world.start(lambda frame: b"depthUpdate" in frame)
    await world.begin()
    await world.send(frames.depth(1))
    await world.until(LETTERS, 1)
    code, said = await redrive(world, "--all")
    assert (code, said["states"]) == (1, {"kept": 1})
    assert "built anew" in said["letters"][0]["detail"]
    assert await world.value(LETTERS) == 1


@pytest.mark.parametrize("how", ["id", "reason", "all"])
async def test_listed_shown_and_dropped(world: Any, frames: Any, how: str) -> None:
    world.start()
    await world.begin()
    await world.send(b"\x1b[31mno json\xff", frames.trade(1))
    await world.until(LETTERS, 1)
    code, listed = await feedmill(world, "list", "-o", "json", "--each")
    letter = json.loads(listed)["letters"][0]
    assert (code, letter["size"], letter["shard"]) == (0, 13, "default.spot.0")
    code, text = await feedmill(world, "list")
    assert code == 0
    assert letter["reason"] in text
    code, text = await feedmill(world, "show", letter["id"])
    assert code == 0
    assert "\x1b" not in text
    assert "1b 5b 33 31 6d 6e 6f 20" in text
    assert f"feedmill {letter['codeVersion']}" in text
    code, text = await feedmill(world, "list", "--shard", "default.other.0")
    assert (code, text) == (0, "no dead letters match\n")
    code, text = await feedmill(world, "list", "--since", "1m")
    assert (code, text) == (0, "no dead letters match\n")
    which = {"id": [letter["id"]], "reason": ["--reason", letter["reason"]], "all": ["--all"]}[how]
    code, text = await feedmill(world, "drop", "--yes", *which)
    assert (code, text) == (0, "1 dead letter dropped\n")
    assert await world.value(LETTERS) == 0
    code, text = await feedmill(world, "show", letter["id"])
    assert code == 1
    assert "feedmill dlq list --each shows what there is" in text

"""Capturing: subscriptions, order of records, odd frames, orderly stop, REST and commands."""

from __future__ import annotations

import json
from typing import Any

import redis.asyncio as redis_asyncio

from feedmill.shared import control
from feedmill.shared.clock import SECOND, now_ns


async def test_records_stand_in_order_and_stop_drains(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch()
    await running.ready()
    await venue.publish(500)
    await running.received(500 + len(venue.requests))
    await running.stop()

    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    assert raw.data() == venue.sent
    controls = raw.controls()
    assert isinstance(controls[0], control.Session)
    assert controls[0].session == next(iter(raw.batches))
    assert controls[0].session.startswith("r0-")
    assert len(controls[0].session) == len("r0-") + 18
    assert isinstance(controls[-1], control.SessionEnd)
    (gone,) = raw.controls(control.Disconnected)
    assert gone.cause == "shutdown"
    kinds = [type(value) for value in controls if not isinstance(value, control.Alive)]
    assert kinds[1] is control.Connected
    subscribed = raw.controls(control.Subscribed)
    assert sorted(t.topic for record in subscribed for t in record.topics) == [
        "btcusdt@ticker", "btcusdt@trades", "ethusdt@ticker", "ethusdt@trades",
    ]  # fmt: skip
    assert all(record.conn == gone.conn for record in subscribed)
    # An acknowledgement stands right before the record that follows from it.
    at = [index for index, r in enumerate(raw.records) if r.payload.startswith(b'{"id"')]
    assert all(isinstance(raw.records[index + 1].value, control.Subscribed) for index in at)
    assert [r.at for r in raw.records if r.conn] == sorted(r.at for r in raw.records if r.conn)


async def test_requests_are_chunked(venue: Any, launch: Any) -> None:
    running = launch()
    await running.ready()
    assert [len(request["sub"]) for request in venue.requests] == [3, 1]
    await running.stop()


async def test_a_connection_without_acknowledgement_and_data_ends_as_a_failure(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    venue.acknowledge = False
    running = launch(ack_timeout=0.2)
    await kit.until(lambda: venue.connects >= 3)
    assert len(venue.requests) >= 4  # Each request was sent twice before the first connection was given up.
    venue.acknowledge = True
    await running.ready()
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    assert not raw.controls(control.Rejected)
    ended = [record for record in raw.controls(control.Disconnected) if record.cause == "error"]
    assert len(ended) >= 2
    assert "asked twice" in ended[0].detail


async def test_data_proves_a_subscription_whose_acknowledgement_is_missing(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    venue.acknowledge = False
    running = launch(ack_timeout=1.0)
    await kit.until(lambda: len(venue.requests) >= 2)
    for topic in ("btcusdt@trades", "btcusdt@ticker", "ethusdt@trades", "ethusdt@ticker"):
        await venue.publish(3, topic)
    await running.ready()
    assert venue.connects == 1
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    assert sum(len(record.topics) for record in raw.controls(control.Subscribed)) == 4


async def test_refused_and_left_out_topics_are_rejected(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    venue.refuse = {"ethusdt@ticker"}
    venue.leave_out = {"btcusdt@ticker"}
    running = launch()
    await running.ready()
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    reasons = {t.topic: record.reason for record in raw.controls(control.Rejected) for t in record.topics}
    assert reasons == {
        "btcusdt@ticker": "not listed in the venue's acknowledgement",
        "ethusdt@ticker": "unknown ethusdt@ticker",
    }


async def test_odd_frames_are_kept(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch()
    await running.ready()
    (client,) = venue.clients
    whole = '{"stream":"btcusdt@trades","data":"' + "f" * 300 + '"}'
    odd = [b"\xff\xfe not json", b'{"stream":"short"}', whole.encode()]
    await client.send(odd[0])
    await client.send(odd[1].decode())
    await client.send([whole[:40], whole[40:200], whole[200:]])
    await client.send('{"beat":1}')
    await client.ping(b'{"stream":')
    await kit.until(lambda: '{"alive":1}' in venue.received)
    await venue.publish(1)
    await kit.until(lambda: running.receiver.supervisor.links[0].connection.received >= 6)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    kept = [payload for payload in raw.frames() if not payload.startswith(b'{"id"')]
    assert kept == [*odd, venue.sent[0]]


async def test_fragments_above_the_bound_end_the_connection(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    running = launch(max_message=2000)
    await running.ready()
    (client,) = venue.clients
    await client.send(["x" * 900, "y" * 900, "z" * 900])
    await kit.until(lambda: venue.connects >= 2)
    await running.ready()
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    first = raw.controls(control.Disconnected)[0]
    assert first.cause == "error"
    assert "2000 bytes" in first.detail


async def test_alive_is_written_when_idle(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch(alive_interval=0.1)
    await running.ready()

    async def alive() -> bool:
        return len((await kit.read_raw(redis_server.url)).controls(control.Alive)) >= 2

    await kit.until(alive)
    await running.stop()


async def test_commands_are_answered_once(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch()
    await running.ready()
    await kit.until(lambda: running.receiver.commands.position is not None)
    client = redis_asyncio.Redis.from_url(redis_server.url)
    fresh = control.Command("c1", "book_snapshot", "BTC-USDT", "BTCUSDT", "Book", now_ns())
    again = control.Command("c2", "resubscribe", "ETH-USDT", "ETHUSDT", "Trades", now_ns())
    stale = control.Command("c3", "book_snapshot", "ETH-USDT", "ETHUSDT", "Book", now_ns() - 40 * SECOND)
    for command in (fresh, fresh, stale, again):
        await client.xadd(kit.shard.commands, {"c": control.encode(command)})
    await client.xadd(kit.shard.commands, {"c": b"\xc1 not a command"})
    await client.aclose()

    async def answered() -> Any:
        raw = await kit.read_raw(redis_server.url)
        answers = [a for a in raw.answers() if a.kind == "book_snapshot"]
        return (
            raw
            if answers
            and any(each.kind == "instruments" for each in raw.answers())
            and raw.controls(control.Unsubscribed)
            and len(raw.controls(control.Subscribed)) == 3
            else None
        )

    await kit.until(answered)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    snapshots = [a for a in raw.answers() if a.kind == "book_snapshot"]
    assert [(a.command, a.symbol, a.status) for a in snapshots] == [("c1", "BTC-USDT", 200)]
    assert json.loads(snapshots[0].body)["path"] == "/depth"
    assert [a.command for a in raw.answers() if a.kind == "instruments"] == [""]
    (gone,) = raw.controls(control.Unsubscribed)
    assert [t.topic for t in gone.topics] == ["ethusdt@trades"]
    assert [t.topic for t in raw.controls(control.Subscribed)[-1].topics] == ["ethusdt@trades"]


async def test_rest_waits_out_a_429_and_gives_up_on_a_4xx(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = launch()
    await running.ready()
    await kit.until(lambda: venue.rest_calls)
    await kit.until(lambda: not running.receiver.desk.waiting)
    venue.rest_status = [429, 503, 200, 400]
    running.receiver.desk.snapshot("BTC-USDT", "BTCUSDT", "c1")
    await kit.until(lambda: not running.receiver.desk.waiting)
    running.receiver.desk.snapshot("NO-SUCH", "NOSUCH", "c2")
    await kit.until(lambda: not running.receiver.desk.waiting)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    assert [a.command for a in raw.answers()] == ["", "c1"]
    (failed,) = raw.controls(control.RestFailed)
    assert (failed.command, failed.symbol) == ("c2", "NO-SUCH")
    assert "HTTP 400" in failed.reason
    assert len(venue.rest_calls) == 5


async def test_one_unknown_symbol_costs_only_its_own_metadata(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    venue.unknown = "ETHUSDT"
    running = launch()
    await running.ready()
    desk = running.receiver.desk
    await kit.until(lambda: venue.rest_calls and not desk.waiting)
    desk.instruments(["BTCUSDT", "ETHUSDT", "SOLUSDT"], "c1")
    await kit.until(lambda: not desk.waiting)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    assert len([answer for answer in raw.answers() if answer.command == "c1"]) == 2
    assert "c1" in [record.command for record in raw.controls(control.RestFailed)]
    assert any(call.endswith("symbols=BTCUSDT") for call in venue.rest_calls)
    assert any(call.endswith("symbols=SOLUSDT") for call in venue.rest_calls)

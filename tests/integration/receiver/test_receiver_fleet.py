"""Several receivers behind one address: who carries out a command, and budgets that all of them share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as redis_asyncio

from feedmill.exchanges.base import RestRequest
from feedmill.shared import control
from feedmill.shared.clock import now_ns
from feedmill.shared.keys import ShardRef


async def ask(url: str, shard: ShardRef, *commands: control.Command) -> None:
    client = redis_asyncio.Redis.from_url(url)
    for command in commands:
        await client.xadd(shard.commands, {"c": control.encode(command)})
    await client.aclose()


async def ready(kit: Any, *running: Any) -> None:
    for each in running:
        await each.ready()
        await kit.until(lambda each=each: each.receiver.commands.position is not None)
        await kit.until(lambda each=each: not each.receiver.desk.waiting)


async def test_one_replica_carries_out_a_command(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    running = [launch(replica="r0"), launch(replica="r1")]
    await ready(kit, *running)
    snapshots = [
        control.Command(f"c{n}", "book_snapshot", "BTC-USDT", f"BTCUSDT{n}", "Book", now_ns()) for n in range(20)
    ]
    again = control.Command("again", "resubscribe", "ETH-USDT", "ETHUSDT", "Trades", now_ns())
    await ask(redis_server.url, kit.shard, *snapshots, again)

    async def done() -> bool:
        raw = await kit.read_raw(redis_server.url)
        return len(raw.controls(control.Unsubscribed)) == 2 and len(raw.answers()) >= 22

    await kit.until(done)
    for each in running:
        await each.stop()
    raw = await kit.read_raw(redis_server.url)
    answered = [answer.command for answer in raw.answers() if answer.kind == "book_snapshot"]
    assert sorted(answered) == sorted(command.id for command in snapshots)
    assert len([call for call in venue.rest_calls if call.startswith("/depth")]) == 20


def snapshot(name: str, *, living: list[str] | None = None) -> control.Command:
    return control.Command(name, "book_snapshot", "BTC-USDT", name, "Book", now_ns(), living=living)


async def test_what_a_session_had_claimed_that_lives_no_more_is_taken_over(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    running = launch()
    await ready(kit, running)
    client = redis_asyncio.Redis.from_url(redis_server.url)
    for name, holder in (("left", "r1-dead"), ("working", "r1-alive"), ("taken", "r1-dead")):
        await client.set(kit.shard.key(f"commands:claimed:{name}"), holder)
    mine = running.receiver.producer.id
    again = [snapshot(name, living=[mine, "r1-alive"]) for name in ("working", "taken", "new")]
    # The last one was claimed by this session a moment ago: it works on it.
    once_more = snapshot("new", living=[mine])
    await ask(redis_server.url, kit.shard, snapshot("left"), *again, once_more, snapshot("end"))

    async def answered() -> list[str]:
        raw = await kit.read_raw(redis_server.url)
        return [answer.command for answer in raw.answers() if answer.kind == "book_snapshot"]

    async def all_there() -> bool:
        return {"taken", "new", "end"} <= set(await answered())  # Asked for side by side: any may be the last.

    await kit.until(all_there)
    await kit.until(lambda: not running.receiver.desk.waiting)
    await running.stop()
    assert sorted(await answered()) == ["end", "new", "taken"]
    assert (await client.get(kit.shard.key("commands:claimed:taken"))).decode() == mine
    await client.aclose()


async def test_a_receiver_that_starts_carries_out_what_was_asked_before(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    """But what concerns connections was asked of those that are no more."""
    again = control.Command("again", "resubscribe", "ETH-USDT", "ETHUSDT", "Trades", now_ns())
    await ask(redis_server.url, kit.shard, again, snapshot("before"))
    running = launch()
    await ready(kit, running)
    await ask(redis_server.url, kit.shard, snapshot("after"))

    async def answered() -> bool:
        raw = await kit.read_raw(redis_server.url)
        return {"before", "after"} <= {answer.command for answer in raw.answers()}

    await kit.until(answered)
    await running.stop()
    assert (await kit.read_raw(redis_server.url)).controls(control.Unsubscribed) == []


async def test_a_replica_whose_requests_fail_leaves_commands_to_the_other(
    venue: Any, launch: Any, redis_server: Any, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine that stands still for the usual quarter of a second would give it to whoever goes on first.
    monkeypatch.setattr("feedmill.receiver.commands.STAND_BACK", 15.0)
    running = [launch(replica="r0"), launch(replica="r1")]
    await ready(kit, *running)
    running[0].receiver.desk.problem = "it does not come through"
    commands = [control.Command(f"c{n}", "book_snapshot", "BTC-USDT", f"B{n}", "Book", now_ns()) for n in range(5)]
    await ask(redis_server.url, kit.shard, *commands)

    async def answered() -> list[str]:
        raw = await kit.read_raw(redis_server.url)
        found = [record for record in raw.records if record.kind.name == "REST"]
        return [r.session.rpartition("-")[0] for r in found if r.value.kind == "book_snapshot"]

    async def all_there() -> bool:
        return len(await answered()) == 5

    await kit.until(all_there)
    assert await answered() == ["r1"] * 5


async def test_what_the_venue_refuses_is_told_apart_from_what_failed(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    running = launch()
    await ready(kit, running)
    venue.rest_status = [400, 500, 500, 500, 500, 500]
    for name in ("refused", "failed"):
        await ask(redis_server.url, kit.shard, control.Command(name, "book_snapshot", "B", name, "Book", now_ns()))
        await kit.until(lambda: len(venue.rest_status) in (5, 0))
        await kit.until(lambda: not running.receiver.desk.waiting)
    # The toy venue has no trades by number.
    await ask(redis_server.url, kit.shard, control.Command("no", "trades", "B", "B", "Trades", now_ns(), "gap", 1, 9))

    async def told() -> Any:
        raw = await kit.read_raw(redis_server.url)
        found = {record.command: record.status for record in raw.controls(control.RestFailed)}
        return found if len(found) == 3 else None

    assert await kit.until(told) == {"refused": 400, "failed": 0, "no": 404}


async def test_a_storm_of_a_fleet_keeps_the_connects_of_one(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    venue.close_after_subscribe = True
    seconds, limits = 4.0, kit.limits(connects=24, connects_window=2.0)
    most = limits.connects * 0.5
    running = [
        launch(
            limits, shard=ShardRef("test", "toy", number), fleet="toy.here", fleet_members=4, min_backoff=0.01,
            max_backoff=0.05,
        )
        for number in range(4)
    ]  # fmt: skip
    await kit.until(lambda: venue.connects >= 4)
    before, began = venue.connects, asyncio.get_running_loop().time()
    await asyncio.sleep(seconds)
    took = asyncio.get_running_loop().time() - began
    made = venue.connects - before
    assert 4 <= made <= most * (took / limits.connects_window + 1)
    # One that got no answer for a second goes by its share until the next one.
    await kit.until(lambda: all(each.receiver.fleet.document()["shared"] for each in running))
    assert all(each.receiver.fleet.members == 4 for each in running)


async def test_without_redis_a_receiver_connects_by_its_share(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    redis_server.stop()
    running = launch(fleet="toy.here", fleet_members=3)
    await kit.until(lambda: venue.connects == 1)
    document = running.receiver.fleet.document()
    assert (document["shared"], document["members"]) == (False, 3)
    redis_server.start()
    await running.ready()
    await running.stop()


async def test_subscribe_requests_of_all_connections_share_a_budget(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    """Half of 4 at once and 4 a second: eight requests take their time, on whichever connection."""
    limits = kit.limits(topics_per_request=1, subscribes=4.0, subscribes_per_second=4.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    running = [
        launch(limits, shard=ShardRef("test", "toy", number), fleet="toy.here", fleet_members=2) for number in range(2)
    ]
    for each in running:
        await each.ready()
    assert len(venue.requests) == 8
    assert loop.time() - began >= (8 - 1.6) / 1.6 - 0.2


async def test_a_429_of_one_holds_back_all(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    first, second = (
        launch(shard=ShardRef("test", "toy", number), fleet="toy.here", fleet_members=2) for number in range(2)
    )
    await ready(kit, first, second)
    loop = asyncio.get_running_loop()
    began, calls = loop.time(), len(venue.rest_calls)
    first.receiver.desk._buckets["weight"].block(1.5)  # As after Retry-After.
    await kit.until(lambda: not first.receiver.fleet._tasks)
    second.receiver.desk.snapshot("BTC-USDT", "BTCUSDT", "c1")
    await kit.until(lambda: len(venue.rest_calls) > calls)
    assert loop.time() - began >= 1.3


async def test_trades_of_the_past_wait_for_memory(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    """A full memory sheds what comes now; answers of the past must not be the reason."""
    running = launch()
    await ready(kit, running)
    receiver = running.receiver
    held = int(0.6 * receiver.budget.limit)
    receiver.budget.add(held)
    calls = len(venue.rest_calls)
    receiver.desk.ask(RestRequest("trades", f"{venue.rest_url}/instruments", {"symbols": "PAST"}, 1), "past")
    receiver.desk.ask(RestRequest("book_snapshot", f"{venue.rest_url}/depth", {"symbol": "NOW"}, 1), "now")
    await kit.until(lambda: any("NOW" in call for call in venue.rest_calls[calls:]))
    await kit.until(lambda: receiver.desk.waiting == 1)
    assert not any("PAST" in call for call in venue.rest_calls[calls:])
    receiver.budget.release(held)
    await kit.until(lambda: any("PAST" in call for call in venue.rest_calls[calls:]))
    await kit.until(lambda: not receiver.desk.waiting)  # Asked for is not answered yet.
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    assert {"past", "now"} <= {answer.command for answer in raw.answers()}

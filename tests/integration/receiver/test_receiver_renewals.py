"""Renewals in every state: the old connection goes on until the new one works, and a stop ends both in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from feedmill.receiver import metrics
from feedmill.shared import control

from .traffic import repeated

ANNOUNCED = '{"event":"shutdown"}'


@asynccontextmanager
async def traffic(venue: Any) -> AsyncIterator[None]:
    async with repeated(lambda: venue.publish(1)):
        yield


class Gate:
    """A budget that is used up until it is opened, however long that takes."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def take(self, amount: float = 1.0) -> None:
        await self.opened.wait()


def keeper_of(running: Any) -> Any:
    return running.receiver.supervisor.keepers[0]


async def announce(venue: Any) -> None:
    (client,) = venue.clients
    await client.send(ANNOUNCED)


def works(running: Any) -> bool:
    """Whether the new connection is there, subscribed and brings data, and the old one is there too."""
    lives = list(keeper_of(running)._lives)
    return len(lives) == 2 and lives[1].subscriber.settled and lives[1].connection.got_data.is_set()


async def assert_all_there(running: Any, venue: Any, redis_server: Any, kit: Any) -> Any:
    async def stored() -> bool:
        return set((await kit.read_raw(redis_server.url)).data()) >= set(venue.sent)

    await kit.until(stored)
    await running.stop()
    raw = await kit.read_raw(redis_server.url)
    raw.assert_dense()
    ended = raw.controls(control.Disconnected)
    assert sorted(each.conn for each in ended) == sorted(each.conn for each in raw.controls(control.Connected))
    return {each.conn: each.cause for each in ended}


def counted(cause: str, result: str) -> float:
    return float(metrics.renewals.labels(cause, result)._value.get())


async def test_the_old_one_stays_while_the_venue_refuses(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    before = counted("announced", "ok")
    running = launch()
    await running.ready()
    async with traffic(venue):
        venue.refuse_http = 503
        await announce(venue)
        await kit.until(lambda: venue.connects >= 4)
        keeper = keeper_of(running)
        assert (keeper.state, keeper.link.number) == ("renewing", 1)
        assert running.receiver.health.ready()[0]
        venue.refuse_http = None
        await kit.until(lambda: keeper.link.number > 1 and keeper.state == "open")
        last = keeper.link.number
    ends = await assert_all_there(running, venue, redis_server, kit)
    assert ends == {1: "planned", last: "shutdown"}
    assert counted("announced", "ok") == before + 1


async def test_the_old_one_stays_while_there_is_no_budget_until_it_is_cut(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    before = counted("announced", "late")
    running = launch()
    await running.ready()
    keeper = keeper_of(running)
    keeper._connects = gate = Gate()
    await announce(venue)
    await kit.until(lambda: keeper.state == "renewing")
    assert running.receiver.health.ready()[0]
    await venue.publish(5)
    (client,) = venue.clients
    await client.close(1001, "connection lifetime reached")
    await kit.until(lambda: keeper.state == "budget")
    assert not running.receiver.health.ready()[0]
    gate.opened.set()
    await running.ready()
    await venue.publish(5)
    ends = await assert_all_there(running, venue, redis_server, kit)
    assert ends[1] == "closed"
    assert counted("announced", "late") == before + 1


async def test_the_old_one_stays_when_the_new_one_dies_soon(
    venue: Any, launch: Any, redis_server: Any, kit: Any
) -> None:
    running = launch()
    await running.ready()
    (old,) = venue.clients
    async with traffic(venue):
        await announce(venue)
        await kit.until(lambda: works(running))
        (new,) = set(venue.clients) - {old}
        new.transport.abort()
        await kit.until(lambda: keeper_of(running).link.number == 3)
    ends = await assert_all_there(running, venue, redis_server, kit)
    assert (ends[1], ends[3]) == ("planned", "shutdown")
    assert ends[2] not in ("planned", "shutdown")


@pytest.mark.parametrize("state", ["backoff", "budget", "unacknowledged", "overlap"])
async def test_a_stop_while_it_renews_ends_all_in_order(
    state: str, venue: Any, launch: Any, redis_server: Any, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedmill.receiver.keeper.OVERLAP", 60.0)  # The stop comes within it, however slow the machine.
    running = launch()
    await running.ready()
    keeper = keeper_of(running)
    if state == "backoff":
        venue.refuse_http = 503
    elif state == "budget":
        keeper._connects.block(600.0)
    elif state == "unacknowledged":
        venue.acknowledge = False
    reached = {
        "backoff": lambda: keeper._state == "backoff",
        "budget": lambda: keeper._state == "budget",
        "unacknowledged": lambda: len(keeper._lives) == 2 and len(venue.requests) >= 3,
        "overlap": lambda: works(running),
    }[state]
    async with traffic(venue):
        await announce(venue)
        await kit.until(reached)
        assert keeper.state == "renewing"
    ends = await assert_all_there(running, venue, redis_server, kit)
    assert set(ends.values()) == {"shutdown"}
    assert ends.keys() == ({1, 2} if state in ("unacknowledged", "overlap") else {1})
    assert keeper.state == "stopped"
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("link-", "keep-", "subscribe-"))]


async def test_another_lifetime_counts_at_once(venue: Any, launch: Any, redis_server: Any, kit: Any) -> None:
    before = counted("planned", "ok")
    running = launch(lifetime=3600.0)
    await running.ready()
    keeper = keeper_of(running)
    async with traffic(venue):
        keeper.limit(replace(running.receiver.settings, lifetime=1.0))
        await kit.until(lambda: keeper.link.number >= 2)
        keeper.limit(running.receiver.settings)
        await kit.until(lambda: keeper.state == "open")
    ends = await assert_all_there(running, venue, redis_server, kit)
    assert ends.pop(max(ends)) == "shutdown"
    assert set(ends.values()) == {"planned"}
    assert counted("planned", "ok") == before + len(ends)

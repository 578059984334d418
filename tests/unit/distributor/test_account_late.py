"""An account's distributor: what is told twice, and what an earlier session brings late."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from feedmill.shared.account_events import Balance, BalanceChange, Position
from feedmill.shared.frames import VERSION, RawBatch, Run, RunKind, encode_batch

from .account_world import World, started


def test_of_two_equal_deposits_in_a_millisecond_the_second_is_kept_as_a_dead_letter() -> None:
    world = started()
    deposit = BalanceChange("USDT", "5", "unknown:balanceUpdate", "", 7_000_000, 0)
    later = msgspec.structs.replace(deposit, venue_ns=8_000_000)
    named = [msgspec.structs.replace(deposit, venue_id=name) for name in ("1", "2", "2")]
    other = msgspec.structs.replace(deposit, change="5.5")
    said = [world.say([event]) for event in (deposit, other, deposit, later)]
    for payload in (said[0], said[0], *said[1:]):  # The first one comes twice in a row.
        world.append(RunKind.FRAMES, payload)
    world.append(RunKind.FRAMES, world.say(list(named)))
    world.read(100)
    world.commit()
    block = world.blocks[-1]
    found = [(each.change, each.venue_ns, each.venue_id) for each in block.changes][1:]
    at = deposit.venue_ns
    assert found == [
        ("5", at, ""),
        ("5.5", at, ""),
        ("5", later.venue_ns, ""),
        *[("5", at, i) for i in ("1", "2", "2")],
    ]
    assert [(each.reason, each.payload) for each in block.dead_letters] == [("equal_change", said[2])]
    assert not block.gaps


def test_what_two_connections_tell_alike_is_no_dead_letter() -> None:
    world = started()
    said = world.say([BalanceChange("USDT", "5", "unknown:balanceUpdate", "", 7_000_000, 0)])
    world.append(RunKind.FRAMES, said)
    world.conn += 1
    world.append(RunKind.FRAMES, said)
    world.read(100)
    world.commit()
    assert len(world.blocks[-1].changes) == 2, "PostgreSQL makes one of them"
    assert not world.blocks[-1].dead_letters


def taken_over() -> tuple[World, Callable[[int, bytes], None]]:
    """Another session counts now; and what lets the one before bring a frame, received at a time (ns)."""
    world = started()
    session, number = f"r-{world.sessions}", world.n + 1
    world.session()
    world.connect()
    world.read(100)
    world.commit()

    def late(at_ns: int, payload: bytes) -> None:
        batch = RawBatch(VERSION, session, number, [Run(RunKind.FRAMES, 1, [at_ns], [payload])])
        world.raw.append((f"{len(world.raw) + 1}-0", encode_batch(batch)))

    return world, late


def test_what_a_receiver_that_stood_still_reads_late_is_no_news_where_nothing_says_when_it_was() -> None:
    world, late = taken_over()
    untimed = [Balance("BTC", "1", "", "", "", 0, 0), Position("BTC-PERP", "", "1", "", "", "", "", 0, 0)]
    timed = Balance("ETH", "1", "", "", "", 7_000_000, 0)
    late(world.at_ns + 1, world.say([*untimed, timed]))
    world.append(RunKind.FRAMES, world.say([Balance("BTC", "2", "", "", "", 0, 0)]))
    world.read(100)
    world.commit()
    block = world.blocks[-1]
    assert [(each.asset, each.total) for each in block.balances] == [("ETH", "1"), ("BTC", "2")]
    assert not block.positions


def test_a_position_that_is_gone_is_not_opened_again_by_what_comes_late() -> None:
    """Binance lists only the positions there are: when one was closed is not told."""
    world, late = taken_over()
    late(world.at_ns + 1, world.say([Position("BTCUSDT", "BOTH", "1", "", "", "", "", 7_000_000, 0)]))
    now = Position("ETHUSDT", "BOTH", "2", "", "", "", "", 7_000_000, 0)
    world.append(RunKind.FRAMES, world.say([now]))
    world.read(100)
    world.commit()
    assert [each.symbol for each in world.blocks[-1].positions] == ["ETHUSDT"]


def test_what_comes_late_and_cannot_be_read_does_not_end_a_gap_earlier() -> None:
    world, late = taken_over()
    (gap,) = (each for each in [world.engine.line.gap] if each is not None)
    assert gap.to_ns > 1
    late(1, b"strange")
    world.read(100)
    assert world.engine.line.gap == gap

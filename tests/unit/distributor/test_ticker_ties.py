"""Tickers without ids of one ms: what the connection that counts owes of them when it ends is stored or told."""

from __future__ import annotations

from typing import Any

from feedmill.distributor import held as held_module
from feedmill.shared import control

MS = 1_000_000


def begin(kit: Any) -> tuple[Any, Any, Any]:
    """A host with two connections, of which the first counts; both have brought a first ticker."""
    host = kit.Host(kit.settings_of("inband"))
    one, other = kit.Feeder("one-000000000001aaaa"), kit.Feeder("other-000000000002bbbb")
    for feeder in (one, other):
        host.feed(feeder.open(kit.T0, kit.topic("Ticker")))
    for feeder in (one, other):
        host.feed(feeder.frames(kit.T0 + 1, kit.ticker(1, 1 * MS)))
    return host, one, other


def test_the_other_one_has_what_the_one_that_ended_owed_of_its_last_ms(kit: Any) -> None:
    host, one, other = begin(kit)
    host.feed(other.frames(kit.T0 + 2, *(kit.ticker(seq, 5 * MS) for seq in (51, 52, 53))))
    host.feed(one.frames(kit.T0 + 2, kit.ticker(51, 5 * MS)), one.close(kit.T0 + 3, "silent"))
    host.feed(other.frames(kit.T0 + 4, kit.ticker(60, 6 * MS)))
    out = host.commit()
    assert out.tickers == [1, 51, 52, 53, 60]
    assert not out.events.gaps
    assert not host.engine._quotes.tracks[kit.SYMBOL].held.kept


def test_too_many_of_one_ms_to_keep_are_told_as_missing(kit: Any) -> None:
    host = kit.Host(kit.settings_of("inband"))
    one, other = kit.Feeder("one-000000000001aaaa"), kit.Feeder("other-000000000002bbbb")
    host.feed(one.open(kit.T0, kit.topic("Ticker")), one.frames(kit.T0, kit.ticker(1, 1 * MS)))
    host.feed(other.open(kit.T0 + 1, kit.topic("Ticker")))
    many = [kit.ticker(1000 + n, 5 * MS) for n in range(held_module.MOST + 40)]
    host.feed(other.frames(kit.T0 + 2, *many), one.frames(kit.T0 + 2, *many[:3]), one.close(kit.T0 + 3, "silent"))
    host.feed(other.frames(kit.T0 + 4, kit.ticker(9, 6 * MS)))
    out = host.commit()
    assert len(out.tickers) < 2 + len(many)
    (row,) = out.rows().values()
    assert (row.from_seq, row.to_seq) == (5, 5)


def test_one_that_lost_some_within_a_ms_is_not_taken_for_whole(kit: Any) -> None:
    host, one, other = begin(kit)
    host.feed(one.frames(kit.T0 + 2, kit.ticker(51, 5 * MS)))
    host.feed(one.control(kit.T0 + 2, control.Shed(1, 1, 100, kit.T0 + 2, kit.T0 + 2)))
    host.feed(one.frames(kit.T0 + 3, kit.ticker(53, 5 * MS), kit.ticker(60, 6 * MS)))
    host.feed(other.close(kit.T0 + 4, "silent"))
    out = host.commit()
    assert out.tickers == [1, 51, 53, 60]
    assert out.rows(), "52 is missing"

"""An instrument that is delisted, or selected no longer: what is open of it ends, and nothing of it is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from feedmill.shared import control

CHANNELS = ("Trades", "Ticker", "Book", "Candles")


def lost(kit: Any, rules: str, *, seen: bool) -> Any:
    """A host whose only connection ended; ``seen``: after events of every channel."""
    host = kit.Host(kit.settings_of(rules))
    feeder = kit.Feeder()
    topics = [kit.topic(channel) for channel in CHANNELS]
    host.feed(feeder.open(kit.T0, *topics))
    if seen:
        book = kit.frame(["b", kit.SYMBOL, True, 7, 7, -1, kit.T0, [["1", "1"]], [["2", "1"]]])
        frames = [kit.trade(1), kit.ticker(5, kit.T0), kit.candle(kit.T0, "1"), book]
        host.feed(feeder.frames(kit.T0, *frames))
    host.commit()
    host.now += 10 * kit.SECOND
    host.feed(feeder.close(host.now, "error"))
    host.tick(5.0).commit()
    return host


def owed(host: Any) -> set[str]:
    return {name.decode() for name in host.fields if name[:2] in (b"t:", b"k:", b"b:", b"c:", b"u:")}


@pytest.mark.parametrize("rules", ["dense", "pu", "inband"])
@pytest.mark.parametrize("seen", [True, False])
def test_gaps_of_a_delisted_instrument_end(kit: Any, rules: str, seen: bool) -> None:
    host = lost(kit, rules, seen=seen)
    told = {row.channel for row in host.out.rows().values()}
    assert {row.state for row in host.out.rows().values()} == {"open"}
    assert "Ticker" in told
    host.settings = replace(host.settings, wanted=frozenset(), selected=True)
    host.restart().tick(1.0).commit()
    rows = host.out.rows().values()
    assert {row.channel for row in rows} >= told | ({"Trades"} if seen else set())
    for row in rows:
        assert (row.state, row.to_seq, row.missing) == ("closed", -1, [])
        assert row.to_ns > 0
        assert row.cause == "disconnected"
    assert owed(host) == set()
    # Another life finds nothing more to tell.
    before = len(host.out.events.gaps)
    host.restart().tick(60.0).commit()
    assert len(host.out.events.gaps) == before


def test_a_manifest_that_may_be_older_than_the_receivers_ends_nothing(kit: Any) -> None:
    host = lost(kit, "dense", seen=True)
    host.settings = replace(host.settings, wanted=frozenset())
    host.restart().tick(1.0).commit()
    assert {row.state for row in host.out.rows().values()} == {"open"}
    assert owed(host) >= {f"t:{kit.SYMBOL}", f"k:{kit.SYMBOL}"}


def test_what_is_unsubscribed_for_good_ends_in_order(kit: Any) -> None:
    """The usual way of an expiry: covered to the last, so there is nothing to tell."""
    host = kit.Host()
    feeder = kit.Feeder()
    topics = [kit.topic(channel) for channel in CHANNELS]
    host.feed(feeder.open(kit.T0, *topics), feeder.frames(kit.T0, kit.trade(1), kit.ticker(5), kit.trade(2)))
    host.feed(feeder.control(kit.T0, control.Unsubscribed(1, topics, final=True)))
    host.tick(60.0).commit()
    assert [row for row in host.out.rows().values() if row.state == "open"] == []
    assert [row.channel for row in host.out.rows().values() if row.channel != "Book"] == []
    assert host.out.trades == [1, 2]
    assert owed(host) == set()
    # What trickles in late begins nothing anew.
    host.feed(feeder.frames(kit.T0, kit.trade(9), kit.ticker(11))).tick(60.0).commit()
    assert host.out.trades == [1, 2]
    assert owed(host) == set()

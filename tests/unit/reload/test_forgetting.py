"""What a distributor makes of topics that are no longer wanted, and of those its own manifest does not name yet."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feedmill.exchanges.base import Mapper
from feedmill.shared import control


@pytest.fixture(scope="module")
def kit() -> Any:
    """The venue, engine and batches of the distributor's own tests."""
    path = Path(__file__).parents[1] / "distributor" / "conftest.py"
    spec = importlib.util.spec_from_file_location("distributor_kit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["distributor_kit"] = module
    spec.loader.exec_module(module)
    return module.Kit()


def gone(kit: Any, *channels: str) -> control.Unsubscribed:
    return control.Unsubscribed(1, [kit.topic(name) for name in channels], final=True)


def fields(host: Any) -> set[str]:
    return {name.decode() for name in host.fields if name.split(b":")[0] in (b"t", b"k", b"b", b"c", b"u")}


def test_a_removed_instrument_leaves_nothing_and_begins_anew(kit: Any) -> None:
    host, feeder = kit.Host(), kit.Feeder()
    topics = [kit.topic("Trades"), kit.topic("Ticker"), kit.topic("Book")]
    host.feed(feeder.open(1, *topics), feeder.frames(2, kit.trade(1), kit.ticker(5)))
    host.commit()
    assert {"t:BTC-USDT", "k:BTC-USDT", "b:BTC-USDT"} == fields(host)
    host.feed(feeder.control(3, gone(kit, "Trades", "Ticker", "Book")))
    host.commit()
    assert fields(host) == set()
    # What still trickles in begins nothing, also after a restart within the same connection.
    host.feed(feeder.frames(4, kit.trade(2), kit.ticker(6)))
    host.commit()
    assert fields(host) == set()
    host.tick(60)
    host.feed(feeder.control(5, control.Subscribing(1, topics), control.Subscribed(1, topics)))
    host.feed(feeder.frames(6, kit.trade(90), kit.ticker(70)))
    out = host.tick(5).commit()
    assert out.trades == [1, 90]
    assert out.tickers == [5, 70]
    assert out.rows() == {}


def test_what_ends_for_a_moment_is_missed_as_before(kit: Any) -> None:
    host, feeder = kit.Host(), kit.Feeder()
    host.feed(feeder.open(1, kit.topic("Trades")), feeder.frames(2, kit.trade(1)))
    host.feed(feeder.control(3, control.Unsubscribed(1, [kit.topic("Trades")])))
    host.feed(feeder.control(4, control.Subscribed(1, [kit.topic("Trades")])), feeder.frames(5, kit.trade(3)))
    out = host.tick(5).commit()
    assert kit.missing_of(out.rows().values()) == {2}


def test_with_another_receiver_the_topic_goes_when_the_last_one_ends_it(kit: Any) -> None:
    host, one, two = kit.Host(), kit.Feeder(), kit.Feeder("r1-000000000001bbbbbb")
    host.feed(one.open(1, kit.topic("Trades")), two.open(1, kit.topic("Trades")), one.frames(2, kit.trade(1)))
    host.feed(one.control(3, gone(kit, "Trades")), two.frames(4, kit.trade(1), kit.trade(2)))
    assert host.commit().trades == [1, 2]
    assert fields(host) == {"t:BTC-USDT"}
    host.feed(two.control(5, gone(kit, "Trades")))
    assert host.commit().rows() == {}
    assert fields(host) == set()


def test_what_owes_a_gap_is_kept(kit: Any) -> None:
    """Lost first, unwanted later: what was missed while it was wanted is told when it comes again."""
    host, feeder = kit.Host(), kit.Feeder()
    host.feed(feeder.open(1, kit.topic("Trades")), feeder.frames(2, kit.trade(1)), feeder.close(3))
    host.commit()
    host.settings = replace(host.settings, wanted=frozenset())
    host.restart().commit()
    assert fields(host) == {"t:BTC-USDT"}
    host.feed(feeder.open(9, kit.topic("Trades"), conn=2, first=False), feeder.frames(10, kit.trade(4), conn=2))
    out = host.tick(5).commit()
    assert kit.missing_of(out.rows().values()) == {2, 3}


def test_a_hole_found_before_the_removal_is_a_gap(kit: Any) -> None:
    host, feeder = kit.Host(), kit.Feeder()
    host.feed(feeder.open(1, kit.topic("Trades")), feeder.frames(2, kit.trade(1), kit.trade(3)))
    host.feed(feeder.control(3, gone(kit, "Trades")))
    out = host.commit()
    assert kit.missing_of(out.rows().values()) == {2}
    assert fields(host) == set()


def test_a_restart_forgets_what_nobody_wants_or_brings(kit: Any) -> None:
    host, feeder = kit.Host(), kit.Feeder()
    host.feed(feeder.open(1, kit.topic("Trades"), kit.topic("Ticker")), feeder.frames(2, kit.trade(1), kit.ticker(1)))
    host.commit()
    host.settings = replace(host.settings, wanted=frozenset())
    host.restart().commit()
    assert fields(host) == {"t:BTC-USDT", "k:BTC-USDT"}, "a connection brings them still"
    host.settings = replace(host.settings, wanted=frozenset({("Trades", kit.SYMBOL, "")}))
    host.restart()
    host.feed(feeder.control(3, gone(kit, "Trades", "Ticker")))
    host.commit()
    assert fields(host) == set()


class Strict(Mapper):
    """Knows only the symbols it was told of."""

    def map(self, payload: bytes, receive_ns: int) -> Any:
        from feedmill.exchanges.base import MapError
        from feedmill.shared.events import Trade

        native, number, at = msgspec.json.decode(payload)
        if native not in self.symbols:
            raise MapError("unknown_symbol", native)
        return [Trade(self.symbols[native], number, "1", "1", 1, at, receive_ns)]

    def map_rest(self, *_: Any) -> Any:
        return []


@pytest.mark.parametrize("live", [True, False])
def test_receivers_name_what_they_ask_for(kit: Any, live: bool) -> None:
    host, feeder = kit.Host(mapper=lambda: Strict({})), kit.Feeder()
    topics = [kit.topic("Trades")]
    if live:
        host.feed(feeder.open(1), feeder.control(2, control.Subscribing(1, topics)))
    else:
        host.feed(feeder.control(1, feeder.begin(), control.Connected(1, "stream", topics)))
    host.commit()
    host.restart()
    host.feed(feeder.frames(3, msgspec.json.encode(["BTCUSDT", 1, kit.T0])))
    out = host.commit()
    assert out.trades == [1]
    assert out.events.dead_letters == []

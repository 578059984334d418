"""What receivers name before this process knows it: its metadata may have come too early, and is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.distributor.engine import ASK_SINGLY
from feedmill.shared import control


def asked(kit: Any, symbols: list[str], natives: dict[str, str]) -> list[tuple[str, str]]:
    host = kit.Host(kit.settings_of(natives=natives))
    feeder = kit.Feeder()
    topics = [kit.topic(channel, symbol) for symbol in symbols for channel in ("Trades", "Ticker")]
    for conn in (1, 2):
        record = control.Connected(conn, "stream", topics)
        host.feed(feeder.control(kit.T0, *([feeder.begin()] if conn == 1 else []), record, conn=conn))
    return [(each.symbol, each.native) for each in host.commit().commands if each.kind == "instruments"]


def test_each_new_one_is_asked_for_once(kit: Any) -> None:
    assert asked(kit, ["BTC-USDT", "ETH-USDT"], {"BTC-USDT": "BTCUSDT"}) == [("ETH-USDT", "ETHUSDT")]
    assert asked(kit, ["BTC-USDT"], {"BTC-USDT": "BTCUSDT"}) == []


@pytest.mark.parametrize("more", [0, 1])
def test_of_many_all_are_asked_for_at_once(kit: Any, more: int) -> None:
    symbols = [f"A{number}-USDT" for number in range(ASK_SINGLY + more)]
    found = asked(kit, symbols, {})
    assert found == ([("", "")] if more else [(symbol, symbol.replace("-", "")) for symbol in symbols])

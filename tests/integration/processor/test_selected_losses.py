"""Lost commits of a feed that selects its instruments: nothing is told of what has expired or is another shard's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from feedmill.plan import shard_of
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.events import Instrument

from .conftest import REF, Bench, shard_settings, trade


def option(symbol: str, expiry_ns: int) -> Instrument:
    return Instrument(
        symbol, symbol, "Option", "BTC", "BTC", "BTC", "open", "0.0005", "0.1", "1", expiry_ns, "1", "call", now_ns()
    )


async def test_only_what_may_go_on_is_told(bench: Bench) -> None:
    names = [f"BTC-{number}-C" for number in range(100)]
    expired, lives, spot, *_ = (name for name in names if shard_of(name, 2) == REF.shard)
    elsewhere = next(name for name in names if shard_of(name, 2) != REF.shard)
    distributor = bench.distributor()
    instruments: list[Any] = [option(expired, now_ns() - SECOND), option(lives, now_ns() + 3600 * SECOND)]
    trades = [trade(n, symbol=name) for name in (expired, lives, spot, elsewhere) for n in (1, 2)]
    await distributor.commit(trades=trades, instruments=instruments)
    shard = replace(shard_settings(), selected_of=2)
    bench.start(shard)
    await bench.until_stored()
    await distributor.client.flushall()
    distributor.n, distributor.id = 0, ""
    await distributor.commit(trades=[trade(9, symbol=lives)])
    await bench.until_stored()
    rows = await bench.fetch(
        "SELECT i.symbol, g.missing::text FROM gaps g JOIN instruments i ON i.id = g.instrument_id "
        "WHERE g.channel = 'Trades' ORDER BY 1"
    )
    assert rows == sorted([(lives, "{[3,9)}"), (spot, "{}")])

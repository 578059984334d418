"""Tracing is switched on, changed and switched off while the services work; nothing of the flow is the worse for it."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROLES = ("receiver-one", "distributor-one", "processor")


async def test_tracing_comes_and_goes(start_bed: Any, kit: Any, collector: Any) -> None:
    feed = kit.Wanted("binance/Spot", ["BTC-USDT", "ETH-USDT"], channels=["Trades"])
    bed = await start_bed(feed, rate=100)
    plain = bed.pipeline
    await bed.until_emitted(200)
    assert [(await bed.health(name))["tracing"] for name in ROLES] == [{"on": False}] * 3

    bed.pipeline = plain + f'  monitoring: {{tracing: {{otlpEndpoint: "{collector.url}", samplingPercent: 100}}}}\n'
    await bed.take_up()
    on = {"on": True, "endpoint": collector.url, "samplingPercent": 100}
    assert [(await bed.health(name))["tracing"] for name in ROLES] == [on] * 3

    def whole() -> bool:
        traces: dict[str, set[str]] = {}
        for span in collector.spans():
            traces.setdefault(span.trace, set()).add(span.name)
        return any({"receive", "distribute", "store"} <= names for names in traces.values())

    await kit.until(whole)

    async def sent() -> bool:
        """Counted when the collector's answer has come, a moment after it has the spans."""
        return bool(await bed.metric("receiver-one", "feedmill_tracing_sent_spans_total") > 0)

    await kit.until(sent)

    bed.pipeline = bed.pipeline.replace("samplingPercent: 100", "samplingPercent: 0")
    await bed.take_up()

    async def ended() -> float:
        return sum([await bed.metric(name, "feedmill_tracing_spans_total") for name in ROLES])

    # What is under way is followed to its end, however long that takes; then there is nothing more to follow.
    await bed.until_emitted(100)
    await bed.until_past()
    await bed.until_emitted(100)
    before = await ended()
    await bed.until_emitted(200)
    assert await ended() == before

    bed.pipeline = plain
    await bed.take_up()
    assert [(await bed.health(name))["tracing"] for name in ROLES] == [{"on": False}] * 3
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    (found,) = report.venues
    assert found.trades.emitted == found.trades.stored
    assert await bed.rows("SELECT id FROM gaps") == []
    assert (await bed.stats(feed.venue))["connects"] == {"accepted": 1}

"""The span of a try at a request by REST ends, whatever becomes of the try."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from feedmill.exchanges.base import RestRequest
from feedmill.exchanges.registry import get_venue
from feedmill.receiver.rest import RestDesk
from feedmill.receiver.session import Producer
from feedmill.shared.budget import ByteBudget
from feedmill.shared.log import get_logger

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST = RestRequest("book_snapshot", "http://127.0.0.1:1/depth", {"symbol": "BTCUSDT"}, 1, "BTC-USDT", "BTCUSDT")


class Desk(RestDesk):
    """Each try ends as the test says."""

    def __init__(self, error: Exception | None) -> None:
        venue = get_venue("binance", "Spot")
        producer = Producer("r", ByteBudget(10**9), shard="n.f.0")
        super().__init__(
            venue.rest("http://127.0.0.1:1"), venue.feed("ws://127.0.0.1:1").limits, producer, log=get_logger()
        )
        self.error = error
        self.tried = asyncio.Event()

    async def _once(self, *_: Any) -> tuple[bool, str, int]:
        self.tried.set()
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize(("error", "told"), [(None, "CancelledError"), (RuntimeError("x"), "RuntimeError")])
async def test_a_try_that_is_cut_off_has_an_ended_span(traced: Any, error: Exception | None, told: str) -> None:
    desk = Desk(error)
    desk.ask(REQUEST, "c1", trace=PARENT)
    working = asyncio.create_task(desk.run())
    await desk.tried.wait()
    if error is None:
        working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    (span,) = traced.spans()
    assert span.name == "ask venue"
    assert f"{span.context.trace_id:032x}" == PARENT[3:35]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, told)

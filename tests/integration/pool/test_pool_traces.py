"""A fill is followed from the private connection to its row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pool_stage import SPOT, Bed

Start = Callable[..., Awaitable[Bed]]
pytestmark = pytest.mark.timeout(900)  # None is judged by its speed.


async def test_a_fill_is_followed_from_the_socket_to_its_row(start_bed: Start, traced: Any) -> None:
    bed = await start_bed(SPOT, accounts=1)
    [name] = bed.names(SPOT)
    await bed.add(SPOT, name)
    bed.member()
    await bed.listened(name)
    await bed.step(60)
    await bed.equal()
    await bed.stop()
    rows = await bed.rows("SELECT trade_id FROM fills")
    spans = traced.spans()
    by_id = {span.context.span_id: span for span in spans}
    below: dict[tuple[int, str], list[Any]] = {}
    for span in spans:
        if span.parent is not None:
            below.setdefault((span.parent.span_id, span.name), []).append(span)
    told = {
        text.partition(" ")[2]: span
        for span in spans
        if span.name == "distribute"
        for text in span.attributes.get("feedmill.fills", ())
    }
    followed = [row["trade_id"] for row in rows if row["trade_id"] in told]
    assert followed
    for trade_id in followed:
        distribute = told[trade_id]
        receive = by_id[distribute.parent.span_id]
        assert (receive.name, receive.parent) == ("receive", None)
        (store,) = below[distribute.context.span_id, "store"]
        (transaction,) = below[store.context.span_id, "transaction"]
        assert {span.attributes["feedmill.shard"] for span in (receive, distribute, store)} == {
            f"default.@{name.partition('/')[2]}.0"
        }
        assert receive.attributes["feedmill.batch"] == distribute.attributes["feedmill.batch"]
        assert receive.start_time < distribute.start_time < transaction.start_time < transaction.end_time
        assert store.attributes["feedmill.receive_to_commit_seconds"] > 0
        assert not [span for span in (receive, distribute, store, transaction) if span.status.description]

    # What a reconciliation asked for, from the question to the transaction.
    asked = [span for span in spans if span.name == "ask venue"]
    assert asked
    answered = {span: below.get((span.context.span_id, "distribute")) for span in asked}
    stored = 0
    for span, (distribute,) in ((span, found) for span, found in answered.items() if found):
        assert distribute.attributes["feedmill.command"] == span.attributes["feedmill.command"]
        assert span.attributes["http.response.status_code"] == 200
        stored += (distribute.context.span_id, "store") in below
    assert stored

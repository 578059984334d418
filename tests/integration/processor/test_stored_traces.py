"""A traced commit is stored after its first transaction failed: both are told, and the log names them."""

from __future__ import annotations

from typing import Any

import asyncpg
import structlog
from opentelemetry.trace import StatusCode

from feedmill.shared.events import EventBlock
from feedmill.shared.traceparent import TraceRef

from .conftest import Bench, trade

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WAITING = """SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'feedmill processor %'
             AND datname = current_database() AND wait_event_type = 'Lock'"""


async def test_a_transaction_that_failed_is_told_and_so_is_the_one_that_came_through(bench: Bench, traced: Any) -> None:
    run = bench.start()
    distributor = bench.distributor()
    await distributor.trades(1, 10)
    await bench.until_stored()
    holder = await asyncpg.connect(bench.database_url)
    try:
        hold = holder.transaction()
        await hold.start()
        await holder.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
        at = trade(11)
        await distributor.commit(EventBlock(trades=[at], traces=[TraceRef(PARENT, at.exchange_ns, at.receive_ns)]))
        await distributor.commit(EventBlock(trades=[trade(12)]))
        await bench.until(lambda: bench.value(WAITING))
        with structlog.testing.capture_logs() as lines:
            assert await bench.value("SELECT pg_terminate_backend($1)", await bench.value(WAITING))
            await bench.until(lambda: [line for line in lines if line["event"] == "shard.interrupted"])
        await hold.rollback()
    finally:
        await holder.close()
    await bench.until_stored()
    await run.end()
    (line, *_) = [line for line in lines if line["event"] == "shard.interrupted"]
    assert line["commits"][0] == 2
    assert line["trace_ids"] == [PARENT[3:35]]
    assert await bench.fetch("SELECT trade_id FROM trades ORDER BY 1") == list(range(1, 13))

    stores = [span for span in traced.spans() if span.name == "store"]
    assert {f"{span.parent.span_id:016x}" for span in stores} == {PARENT[36:52]}
    *failed, stored = stores
    assert failed
    assert {span.status.status_code for span in failed} == {StatusCode.ERROR}
    assert all("postgres: " in span.status.description for span in failed)
    assert stored.status.status_code is StatusCode.UNSET
    assert stored.attributes["feedmill.commit"] == 2
    assert stored.attributes["feedmill.exchange_to_commit_seconds"] > 3600  # The trade is of yesterday.

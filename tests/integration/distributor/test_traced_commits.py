"""A traced batch through a real commit; and one whose answer is lost."""

from __future__ import annotations

from typing import Any

import structlog
from opentelemetry.trace import StatusCode

from feedmill.shared.clock import now_ns
from feedmill.shared.frames import RawBatch, Run, encode_batch

from .stage import Producer, Proxy, Stage, trade_frame

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def traced_trades(producer: Producer, *numbers: int) -> None:
    run = Run(0, 1, [now_ns()] * len(numbers), [trade_frame(number) for number in numbers])
    producer.batches.append(encode_batch(RawBatch(1, producer.session, len(producer.batches) + 1, [run], PARENT)))
    await producer.send()


async def test_the_events_go_on_with_the_trace(stage: Stage, traced: Any) -> None:
    producer = stage.producer()
    await producer.begin()
    running = stage.start()
    await producer.trades(1, 20)
    await traced_trades(producer, 21, 22)
    await producer.trades(23, 40)
    events = await stage.until_trades(40)
    await running.end()
    (ref,) = events.block.traces
    distribute = next(span for span in traced.spans() if span.name == "distribute")
    assert ref.parent == f"00-{PARENT[3:35]}-{distribute.context.span_id:016x}-01"
    assert f"{distribute.parent.span_id:016x}" == PARENT[36:52]
    assert distribute.attributes["feedmill.trades"] == ("BTC-USDT 21-22",)
    (traded,) = [trade for trade in events.block.trades if trade.id == 21]
    assert (ref.exchange_ns, ref.receive_ns) == (traded.exchange_ns, traded.receive_ns)


async def test_where_tracing_is_off_a_trace_ends_here(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin()
    stage.start()
    await traced_trades(producer, 1, 2)
    events = await stage.until_trades(2)
    assert events.block.traces == []


async def test_a_commit_whose_answer_was_lost_is_told_and_named_in_the_log(
    stage: Stage, proxy: Proxy, traced: Any
) -> None:
    producer = stage.producer()
    await producer.begin()
    running = stage.start(proxy.url)
    await producer.trades(1, 20)
    await stage.until_trades(20)
    with structlog.testing.capture_logs() as lines:
        proxy.swallow = PARENT[3:35].encode()  # Of this commit: one that only trims may come before it.
        await traced_trades(producer, 21)
        await stage.until_trades(21)
        await stage.until(lambda: [line for line in lines if line["event"] == "session.ended"])
    await producer.trades(22, 22)
    events = await stage.until_trades(22)
    await running.end()
    (line, *_) = [line for line in lines if line["event"] == "session.ended"]
    assert line["trace_ids"] == [PARENT[3:35]]
    assert line["commit"] == events.numbers[-2]
    (distribute,) = [span for span in traced.spans() if span.name == "distribute"]
    assert distribute.status.status_code is StatusCode.ERROR
    # It was made all the same, and the trace goes on from there.
    assert len(events.block.traces) == 1
    assert len(events.trades) == 22

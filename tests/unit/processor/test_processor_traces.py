"""Traced commits: what a batch carries of them, the spans of a transaction, and the histograms that name them."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.exposition import generate_latest

from feedmill.processor.batch import Batch
from feedmill.processor.chain import Chain
from feedmill.processor.measures import Figures, Meter
from feedmill.processor.rows import Windows
from feedmill.processor.source import Source
from feedmill.processor.spans import StoreSpans, Traced
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.events import EventBlock, Trade, encode
from feedmill.shared.keys import ShardRef
from feedmill.shared.traceparent import MOST, TraceRef

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REF = ShardRef("test", "spot", 0)
WIDE = Windows((0, 10**19), (0, 10**19), (0, 10**19))


def entry(n: int, *traces: TraceRef) -> list[Any]:
    block = EventBlock(trades=[Trade("A", n, "1", "1", 1, 10**6, 10**6)], traces=list(traces))
    values = [b"n", b"%d" % n, b"id", b"c%d" % n, b"p", b"c%d" % (n - 1) if n > 1 else b"", b"e", encode(block)]
    return [b"%d-0" % n, values]


def read(*entries: list[Any]) -> Batch:
    batch = Batch()
    source = Source(None, REF, Chain(0, "", "0-0"))  # type: ignore[arg-type]
    assert source.add(list(entries), batch, {"A": 1}, WIDE) == len(entries)
    return batch


def test_a_batch_knows_which_of_its_commits_are_traced(traced: Any) -> None:
    ref = TraceRef(PARENT, 5, 6)
    before = now_ns()
    batch = read(entry(1), entry(2, ref), entry(3))
    (found,) = batch.traces
    assert (found.ref, found.n, found.commit_id, found.stream_id, found.events) == (ref, 2, "c2", "2-0", 1)
    assert before <= found.read_ns <= now_ns()


def test_where_tracing_is_off_nothing_is_gathered() -> None:
    assert read(entry(1, TraceRef(PARENT, 5, 6))).traces == []


def test_the_transaction_is_told_with_the_times_from_exchange_and_receiver(traced: Any) -> None:
    at = now_ns()
    refs = [TraceRef(PARENT, at - 3 * SECOND, at - 2 * SECOND), TraceRef(PARENT)]
    spans = StoreSpans("test.spot.0", [Traced(ref, 2, "c2", "2-0", 7, at) for ref in refs])
    took = spans.stored(4, {"trades": 5, "tickers": 0})
    transaction, store, _, untimed = traced.spans()
    assert f"{store.parent.span_id:016x}" == PARENT[36:52]
    assert (store.name, store.kind, store.start_time) == ("store", SpanKind.CONSUMER, at)
    attributes = dict(store.attributes)
    assert [attributes.pop(f"feedmill.{name}_to_commit_seconds") for name in ("exchange", "receive")] == [
        took[0].exchange, took[0].receive,
    ]  # fmt: skip
    assert took[0].exchange is not None
    assert took[0].receive is not None
    assert took[0].exchange >= 3.0
    assert round(took[0].exchange - took[0].receive, 6) == 1.0
    assert attributes == {
        "feedmill.shard": "test.spot.0",
        "feedmill.commit": 2,
        "feedmill.commit_id": "c2",
        "feedmill.events_entry": "2-0",
        "feedmill.events": 7,
    }
    assert transaction.parent.span_id == store.context.span_id
    assert dict(transaction.attributes) == {
        "db.system.name": "postgresql", "feedmill.commits": 4, "feedmill.rows.trades": 5,
    }  # fmt: skip
    assert (took[1].exchange, took[1].receive) == (None, None)
    assert not [name for name in untimed.attributes if name.endswith("_seconds")]


def test_a_transaction_that_fails_is_told(traced: Any) -> None:
    spans = StoreSpans("test.spot.0", [Traced(TraceRef(PARENT), 2, "c2", "2-0", 7, 5)])
    assert spans.trace_ids == [PARENT[3:35]]
    spans.failed("postgres: gone")
    assert [(span.name, span.status.status_code, span.status.description) for span in traced.spans()] == [
        ("transaction", StatusCode.ERROR, "postgres: gone"),
        ("store", StatusCode.ERROR, "postgres: gone"),
    ]


def test_so_many_of_one_transaction_go_on_and_no_more(traced: Any) -> None:
    spans = StoreSpans("test.spot.0", [Traced(TraceRef(PARENT), n, "c", "2-0", 7, 5) for n in range(MOST + 5)])
    assert len(spans.stored(1, {})) == MOST


def test_the_latency_histograms_name_the_trace(traced: Any) -> None:
    at = now_ns()
    meter = Meter("test.exemplars.0", "toy", "Exemplars", Figures())
    ref = TraceRef(PARENT, at - 3 * SECOND, at - SECOND // 2)
    (took,) = StoreSpans("test.exemplars.0", [Traced(ref, 2, "c2", "2-0", 7, at)]).stored(1, {})
    meter.followed([took])
    lines = [line for line in generate_latest(REGISTRY).decode().splitlines() if 'market="Exemplars"' in line]  # type: ignore[no-untyped-call]
    for name in ("exchange", "receive"):
        (line,) = [line for line in lines if line.startswith(f"feedmill_processor_{name}_to_commit") and " # " in line]
        assert f'trace_id="{PARENT[3:35]}"' in line
        assert f'span_id="{took.span.traceparent[36:52]}"' in line

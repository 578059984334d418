"""What the engine tells of traced batches, and the spans that are made of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from feedmill.distributor.accounts.traced import AccountMark, of_account
from feedmill.distributor.spans import CommitSpans
from feedmill.distributor.traced import RANGES, Origin
from feedmill.shared.account_events import AccountBlock, Fill
from feedmill.shared.control import Command
from feedmill.shared.events import decode_events
from feedmill.shared.frames import decode_batch, encode_batch
from feedmill.shared.traceparent import MOST

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def carrying(payload: bytes, parent: str = PARENT) -> bytes:
    batch = decode_batch(payload)
    batch.trace = parent
    return encode_batch(batch)


@pytest.fixture
def shard(kit: Any) -> Any:
    host, feeder = kit.Host(kit.settings_of(trades_page=10)), kit.Feeder()
    host.feed(feeder.open(kit.T0, kit.topic("Trades"), kit.topic("Ticker"), kit.topic("Trades", "ETH-USDT")))
    return host, feeder


def test_of_a_traced_batch_it_is_known_what_it_brought(kit: Any, shard: Any) -> None:
    host, feeder = shard
    at = kit.T0 + 50
    host.feed(feeder.frames(kit.T0 + 10, kit.trade(1, kit.T0 + 1), kit.trade(2, kit.T0 + 2)))
    traced = feeder.frames(
        at, kit.trade(3, kit.T0 + 40), kit.trade(9, kit.T0 + 31, "ETH-USDT"), kit.trade(4, kit.T0 + 41), kit.ticker(5)
    )
    host.feed(carrying(traced))
    host.feed(feeder.frames(kit.T0 + 60, kit.trade(5, kit.T0 + 3)))
    (found,) = host.engine.out.traces
    assert found.origin == Origin(PARENT, "3-0", feeder.session, 3, host.now)
    assert found.events == 4
    assert (found.exchange_ns, found.receive_ns) == (kit.T0 + 31, at)
    assert found.trades == ("BTC-USDT 3-4", "ETH-USDT 9-9")
    host.commit()
    assert host.engine.out.traces == []


def test_what_brings_nothing_new_is_told_all_the_same(kit: Any, shard: Any) -> None:
    host, feeder = shard
    host.feed(feeder.frames(kit.T0, kit.trade(1)), carrying(feeder.frames(kit.T0, kit.trade(1))))
    (found,) = host.engine.out.traces
    assert (found.events, found.exchange_ns, found.receive_ns, found.trades) == (0, 0, 0, ())


def test_an_answer_goes_on_with_the_trace_of_its_request(kit: Any, shard: Any) -> None:
    host, feeder = shard
    host.feed(feeder.frames(host.now, kit.trade(1), kit.trade(4)))
    host.tick(3.0)
    (command,) = host.commit().commands
    body = kit.frame(*(["t", kit.SYMBOL, n, kit.T0 - 5] for n in (2, 3)))
    batch = decode_batch(feeder.answer(host.now, body, command=command.id, kind="trades"))
    answer = msgspec.msgpack.decode(batch.runs[0].frames[0])
    batch.runs[0].frames[0] = msgspec.msgpack.encode([*answer, PARENT])
    host.feed(encode_batch(batch))
    (found,) = host.engine.out.traces
    assert (found.origin.parent, found.origin.command) == (PARENT, command.id)
    assert (found.trades, found.exchange_ns) == (("BTC-USDT 2-3",), kit.T0 - 5)
    assert found.events == 3  # The trades, and the gap's end.


def test_so_many_of_one_commit_go_on_and_no_more(kit: Any, shard: Any) -> None:
    host, feeder = shard
    host.feed(*(carrying(feeder.frames(kit.T0, kit.trade(n))) for n in range(1, MOST + 10)))
    assert len(host.engine.out.traces) == MOST


def test_fills_of_an_account_are_named() -> None:
    def fill(number: int, at: int) -> Fill:
        return Fill("BTC-USDT", str(number), "o", "", 1, "", "1", "1", "1", "0", "USDT", True, "", at, at + 7)

    block = AccountBlock(account="a/b", fills=[fill(1, 5)])
    before = AccountMark.of(block)
    block.fills += [fill(number, 100 - number) for number in range(2, RANGES + 5)]
    found = of_account(Origin(PARENT, "1-0", "s", 2, 3), block, before)
    assert found.events == RANGES + 3
    assert found.fills == tuple(f"BTC-USDT {number}" for number in range(2, RANGES + 2))
    assert (found.exchange_ns, found.receive_ns) == (100 - RANGES - 4, 107 - RANGES - 4)


def test_spans_of_a_commit_hang_below_those_of_the_receiver(kit: Any, shard: Any, traced: Any) -> None:
    host, feeder = shard
    host.feed(
        carrying(feeder.frames(kit.T0, kit.trade(1, kit.T0 - 9))), carrying(feeder.frames(kit.T0, kit.trade(1)), OTHER)
    )
    out = host.engine.out
    spans = CommitSpans("n.f.0", out.traces, [], host.now + 1)
    out.events.traces = spans.refs
    taken = host.engine.take()
    spans.sent(taken.en, "c1")
    took = spans.committed()
    refs = decode_events(taken.events).traces
    assert [(ref.exchange_ns, ref.receive_ns) for ref in refs] == [(kit.T0 - 9, kit.T0), (0, 0)]
    found = {f"{span.name} {span.context.trace_id:032x}": span for span in traced.spans()}
    first, second = (found[f"distribute {parent[3:35]}"] for parent in (PARENT, OTHER))
    assert [ref.parent[36:52] for ref in refs] == [f"{span.context.span_id:016x}" for span in (first, second)]
    assert f"{first.parent.span_id:016x}" == PARENT[36:52]
    assert (first.kind, first.start_time) == (SpanKind.CONSUMER, host.now)
    assert [(event.name, event.timestamp) for event in first.events] == [("mapped", host.now + 1)]
    attributes = dict(first.attributes)
    dispatched = attributes.pop("feedmill.receive_to_dispatch_seconds")
    assert attributes.pop("feedmill.exchange_to_dispatch_seconds") >= dispatched
    assert [seconds for seconds, _ in took] == [dispatched]
    assert attributes == {
        "feedmill.shard": "n.f.0",
        "feedmill.session": feeder.session,
        "feedmill.batch": 2,
        "feedmill.raw_entry": "2-0",
        "feedmill.events": 1,
        "feedmill.trades": ("BTC-USDT 1-1",),
    }
    assert second.attributes["feedmill.events"] == 0
    commit = found[f"commit {PARENT[3:35]}"]
    assert commit.parent.span_id == first.context.span_id
    assert dict(commit.attributes) == {"db.system.name": "redis", "feedmill.commit": 1, "feedmill.commit_id": "c1"}
    assert commit.end_time <= first.end_time


def test_a_commit_that_fails_is_told_by_its_spans(kit: Any, shard: Any, traced: Any) -> None:
    host, feeder = shard
    host.feed(carrying(feeder.frames(kit.T0, kit.trade(1))))
    spans = CommitSpans("n.f.0", host.engine.out.traces, [], host.now)
    spans.sent(1, "c1")
    spans.failed("redis://user:geheim@host is away")
    commit, distribute = traced.spans()
    for span in (commit, distribute):
        assert span.status.status_code is StatusCode.ERROR
        assert "geheim" not in span.status.description


def test_what_is_asked_of_receivers_begins_a_trace_that_the_command_carries(traced: Any) -> None:
    missing = Command("c1", "trades", "BTC-USDT", "BTCUSDT", "Trades", 5, "a gap", from_id=2, to_id=3)
    metadata = Command("c2", "instruments", "", "", "", 5)
    spans = CommitSpans("n.f.0", [], [missing, metadata])
    spans.sent(0, "")
    spans.committed()
    (asked,) = traced.spans()
    assert metadata.trace == ""
    assert missing.trace == f"00-{asked.context.trace_id:032x}-{asked.context.span_id:016x}-01"
    assert (asked.name, asked.start_time, asked.kind) == ("ask for trades", 5, SpanKind.PRODUCER)
    assert dict(asked.attributes) == {
        "feedmill.shard": "n.f.0",
        "feedmill.command": "c1",
        "feedmill.symbol": "BTC-USDT",
        "feedmill.reason": "a gap",
        "feedmill.again": False,
        "feedmill.from": 2,
        "feedmill.to": 3,
    }

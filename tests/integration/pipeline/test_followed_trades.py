"""One trade is followed from the socket to the commit: one trace through three processes, judged by the database."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

pytestmark = pytest.mark.slow
VENUE = "binance/Spot"
TRADES = """SELECT i.symbol, t.trade_id, t.exchange_ns, t.receive_ns FROM trades t
            JOIN instruments i ON i.id = t.instrument_id ORDER BY 1, 2"""


def monitoring(collector: Any, percent: int = 100) -> str:
    return f'{{tracing: {{otlpEndpoint: "{collector.url}", samplingPercent: {percent}}}}}'


def by_trace(spans: list[Any]) -> dict[str, dict[str, list[Any]]]:
    """Trace -> name -> its spans."""
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for span in spans:
        found[span.trace][span.name].append(span)
    return found


def covers(span: Any, symbol: str, trade: int) -> bool:
    for text in span.attributes.get("feedmill.trades", ()):
        name, _, numbers = text.partition(" ")
        first, _, last = numbers.partition("-")
        if name == symbol and int(first) <= trade <= int(last):
            return True
    return False


async def exemplars(bed: Any, role: str) -> set[tuple[str, str]]:
    """(histogram, trace) of all exemplars that a service shows to whoever asks for OpenMetrics."""
    url = f"http://127.0.0.1:{bed.service(role).port}/metrics"
    async with bed.http.get(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as answer:
        families = text_string_to_metric_families(await answer.text())  # type: ignore[no-untyped-call]
        return {
            (family.name, sample.exemplar.labels["trace_id"])
            for family in families
            for sample in family.samples
            if sample.exemplar is not None
        }


async def stopped(bed: Any) -> None:
    """The services end, and send the last spans."""
    await bed.manager.stop()


async def test_a_trade_is_followed_from_the_socket_to_the_commit(start_bed: Any, collector: Any) -> None:
    bed = await start_bed(VENUE, rate=60, channels=("Trades",), monitoring=monitoring(collector))
    await bed.until_emitted(300)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    rows = await bed.rows(TRADES)
    named = {role: await exemplars(bed, role) for role in ("receiver", "distributor", "processor")}
    await stopped(bed)

    traces = by_trace(collector.spans())
    # The histograms of latency name traces that are there.
    assert {role: {family for family, _ in found} for role, found in named.items()} == {
        "receiver": {"feedmill_receiver_append_seconds"},
        "distributor": {"feedmill_distributor_receive_to_dispatch_seconds"},
        "processor": {
            "feedmill_processor_exchange_to_commit_seconds", "feedmill_processor_receive_to_commit_seconds",
        },
    }  # fmt: skip
    assert {trace for found in named.values() for _, trace in found} <= traces.keys()

    followed = whole = 0
    for row in rows:
        for spans in traces.values():
            if any(covers(span, row["symbol"], row["trade_id"]) for span in spans["distribute"]):
                # A Redis that is held up for half a second sends what comes by the disk: no append took it.
                if not any(span.attributes.get("feedmill.spilled") for span in spans["receive"]):
                    _is_whole(spans)
                    whole += 1
                followed += 1
                break
    # At most 100 batches a second are followed: at this rate all of them, but for a burst at the start.
    assert followed >= 0.9 * len(rows) > 100, (followed, len(rows))
    assert whole > 100, (whole, followed)

    # One of them is told to the last nanosecond.
    row = rows[len(rows) // 2]
    (spans,) = [
        each for each in traces.values() if any(covers(s, row["symbol"], row["trade_id"]) for s in each["distribute"])
    ]
    (receive,), (distribute,), (store,) = spans["receive"], spans["distribute"], spans["store"]
    batch = [each for each in rows if covers(distribute, each["symbol"], each["trade_id"])]
    oldest = min(batch, key=lambda each: each["exchange_ns"])
    assert receive.start_ns == min(each["receive_ns"] for each in batch)
    assert store.attributes["feedmill.exchange_to_commit_seconds"] == pytest.approx(
        (store.end_ns - oldest["exchange_ns"]) / 1e9, abs=1e-6
    )
    assert store.attributes["feedmill.receive_to_commit_seconds"] == pytest.approx(
        (store.end_ns - oldest["receive_ns"]) / 1e9, abs=1e-6
    )
    (transaction,) = spans["transaction"]
    assert transaction.attributes["feedmill.rows.trades"] >= len(batch)


def _is_whole(spans: dict[str, list[Any]]) -> None:
    """One span of each kind, each below the one that wrote what it read, in the order of time."""
    assert {name: len(each) for name, each in spans.items() if each} == dict.fromkeys(
        ("receive", "append", "distribute", "commit", "store", "transaction"), 1
    )
    receive, append, distribute, commit, store, transaction = (
        spans[name][0] for name in ("receive", "append", "distribute", "commit", "store", "transaction")
    )
    assert receive.parent == ""
    assert (distribute.parent, store.parent) == (receive.id, distribute.id)
    assert (append.parent, commit.parent, transaction.parent) == (receive.id, distribute.id, store.id)
    assert [span.error for each in spans.values() for span in each] == [""] * 6
    assert [(span.service, span.instance) for span in (receive, distribute, store)] == [
        ("feedmill-receiver", "default/binance-spot/0/r0"),
        ("feedmill-distributor", "default/binance-spot/0"),
        ("feedmill-processor", "default/main/r0"),
    ]
    for name in ("feedmill.session", "feedmill.batch", "feedmill.shard"):
        assert receive.attributes[name] == distribute.attributes[name]
    assert commit.attributes["feedmill.commit_id"] == store.attributes["feedmill.commit_id"]
    assert distribute.attributes["feedmill.events"] >= 1
    ((_, sealed),) = receive.events
    ((_, mapped),) = distribute.events
    assert receive.start_ns <= sealed <= append.start_ns <= append.end_ns <= receive.end_ns
    # Another process may read a batch before its writer has the answer.
    assert append.start_ns <= distribute.start_ns <= mapped <= commit.start_ns <= commit.end_ns <= distribute.end_ns
    assert commit.start_ns <= store.start_ns <= transaction.start_ns <= transaction.end_ns <= store.end_ns


async def test_what_fills_a_gap_is_one_trace_from_the_question_to_the_rows(start_bed: Any, collector: Any) -> None:
    bed = await start_bed(VENUE, rate=60, channels=("Trades",), monitoring=monitoring(collector, 1))
    await bed.until_emitted(100)
    before = await bed.connects(VENUE)
    await bed.fault(VENUE, kind="close", every="subscribe")
    await bed.fault(VENUE, kind="abort")
    await bed.until_emitted(100)
    await bed.fault(VENUE, kind="clear")
    await bed.until_connected(VENUE, before)
    report = await bed.repaired()
    assert report.ok, bed.explain(report)
    gaps = await bed.rows("SELECT repaired_by FROM gaps WHERE channel = 'Trades' AND repaired_by LIKE 'backfill:%'")
    await stopped(bed)

    traces = by_trace(collector.spans())
    assert gaps
    for command in {row["repaired_by"].removeprefix("backfill:") for row in gaps}:
        asked = [
            spans
            for spans in traces.values()
            if any(span.attributes["feedmill.command"] == command for span in spans["ask for trades"])
        ]
        assert asked
        answered = [spans for spans in asked if spans["store"]]
        assert answered, [span for spans in asked for each in spans.values() for span in each]
        spans = answered[-1]
        question, venue, distribute, store = (
            spans[name][-1] for name in ("ask for trades", "ask venue", "distribute", "store")
        )
        assert question.parent == ""
        assert (venue.parent, distribute.parent, store.parent) == (question.id, venue.id, distribute.id)
        assert [span.service for span in (question, venue, distribute, store)] == [
            "feedmill-distributor", "feedmill-receiver", "feedmill-distributor", "feedmill-processor",
        ]  # fmt: skip
        assert venue.attributes["http.response.status_code"] == 200
        assert venue.attributes["feedmill.waited_seconds"] >= 0
        assert distribute.attributes["feedmill.command"] == command
        assert distribute.attributes["feedmill.trades"]
        assert store.attributes["feedmill.exchange_to_commit_seconds"] > 0


async def test_a_collector_that_is_away_costs_nothing_but_the_spans(start_bed: Any, collector: Any) -> None:
    wanted = monitoring(collector)
    collector.stop()
    bed = await start_bed(VENUE, rate=200, channels=("Trades",), monitoring=wanted)
    await bed.until_emitted(1000)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    await stopped(bed)
    for role in ("receiver", "distributor", "processor"):
        (path,) = (bed.folder / "logs").glob(f"*{role}*.log")
        lines = [line for line in path.read_text().splitlines() if "tracing." in line or "opentelemetry" in line]
        assert [line for line in lines if '"tracing.collector_away"' in line], (role, lines)
        assert len(lines) == 1, (role, lines)  # Once, however long it lasts.


async def test_tracing_that_is_off_leaves_no_trace(start_bed: Any, kit: Any, collector: Any) -> None:
    bed = await start_bed(VENUE, rate=200, channels=("Trades",))
    await bed.until_emitted(500)

    async def told() -> Any:
        found = [document for role in ("receiver", "processor") for document in await bed.health(role)]
        return None not in found and found  # One that is too busy to answer in time is asked again.

    assert [document["tracing"] for document in await kit.until(told)] == [{"on": False}] * 2
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    await stopped(bed)
    assert collector.bodies == []

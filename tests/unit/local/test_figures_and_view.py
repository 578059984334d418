"""The numbers of the live view, and how they are shown."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console, Group
from rich.text import Text

from feedmill.local.figures import Collector, FeedFigures, _Rate
from feedmill.local.status import ManagerStatus, ServerStatus, ServiceStatus, total
from feedmill.local.view import LiveDisplay, PlainDisplay, duration_ms, feeds_table, number, render, summary
from feedmill.resources.load import load_texts

FEED = load_texts(
    {
        "f": "apiVersion: feedmill.dev/v1alpha1\nkind: ExchangeFeed\nmetadata: {name: spot}\nspec:\n"
        "  pipelineRef: {name: main}\n  exchange: {name: binance, market: Spot}\n  receiver: {shards: 2}\n"
        "  instruments: {symbols: [BTC-USDT, ETH-USDT]}\n  channels: [{name: Trades}]\n"
    },
    local=True,
).feeds[("default", "spot")]


def status(health: dict[str, dict[str, Any] | None], phase: str = "running") -> ManagerStatus:
    services = []
    for name, document in health.items():
        role = name.split("-")[0]
        feed = "" if role == "processor" else "default/spot"
        service = ServiceStatus(name, role, feed, None, "r0", "running", health=document)
        service.waiting_for = {"capturing": "2 topics wait"} if document and not document.get("ready") else {}
        services.append(service)
    servers = [ServerStatus("redis", "embedded", "redis://127.0.0.1:1/0", "running", 1, 8 << 20)]
    return ManagerStatus(phase, "", True, 65.0, "data", services, servers, total(services, servers))


def receiver(rate: float, active: int = 3, **more: Any) -> dict[str, Any]:
    section = {"state": "open", "framesPerSecond": rate, "active": active, "pending": 0, **more}
    return {"ready": active > 0, "connections": {"stream-1": section}}


def processor(rows: int, lag: float) -> dict[str, Any]:
    shards = {
        "default.spot.0": {"owned": True, "rows": rows, "lagSeconds": lag},
        "default.spot.1": {"owned": False, "rows": 5, "lagSeconds": 99.0},
        "default.other.0": {"owned": True, "rows": 1000, "lagSeconds": 50.0},
    }
    latency = {"binance/Spot": {"exchangeToCommit": {"p50Ms": 12.0, "p99Ms": 60.5, "count": 9}}}
    return {"ready": True, "shards": shards, "latency": latency}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    found = Collector([FEED], lambda: "postgresql://u:p@127.0.0.1:1/none")
    # The database is asked every few seconds; here it has just been.
    found._asked = time.monotonic() + 3600
    return found


async def test_figures_of_a_feed(collector: Collector) -> None:
    collector._gaps = {"default.spot.0": (4, 1), "default.spot.1": (1, 1), "default.other.0": (7, 7)}
    collector._letters = {"default.spot.1": 2}
    health = {"receiver-0": receiver(100.5), "receiver-1": receiver(50), "processor-0": processor(1000, 0.2)}
    (found,) = await collector.look(status(health))
    assert (found.feed, found.venue, found.state, found.flowing) == ("default/spot", "binance/Spot", "flowing", True)
    assert found.frames_per_second == 150.5
    assert (found.rows, found.rows_per_second) == (1005, None)
    assert found.lag_seconds == 0.2
    assert (found.p50_ms, found.p99_ms) == (12.0, 60.5)
    assert (found.gaps, found.gaps_open, found.dead_letters) == (5, 2, 2)


async def test_the_unknown_stays_unknown(collector: Collector) -> None:
    (found,) = await collector.look(status({"receiver-0": None, "processor-0": None}))
    assert found == FeedFigures("default/spot", "binance/Spot", "starting")
    shown = summary(status({"receiver-0": None}), [found])
    assert shown.startswith("0 of 1 feed flowing, ? frames/s in, ? rows/s stored, behind ?, p99 ?, open gaps ?")
    assert shown.endswith("; spot: starting")


async def test_how_many_were_selected(collector: Collector) -> None:
    chosen = {"selection": {"selecting": True, "instruments": 37}}
    (found,) = await collector.look(status({"receiver-0": receiver(1) | chosen}))
    assert found.selected == 37
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(feeds_table([found], 100))
    assert "spot (37)" in console.export_text()
    (found,) = await collector.look(
        status({"receiver-0": receiver(1) | {"selection": {"selecting": False, "instruments": 2}}})
    )
    assert found.selected is None


async def test_states_in_words(collector: Collector) -> None:
    failure = {"host": "h:1", "cause": "dns", "detail": ""}
    (found,) = await collector.look(status({"receiver-0": receiver(0, 0, failure=failure)}))
    assert found.state == "cannot reach h:1: dns"
    (found,) = await collector.look(status({"receiver-0": receiver(0, 0)}))
    assert found.state == "2 topics wait"
    (found,) = await collector.look(status({"receiver-0": receiver(5), "receiver-1": receiver(0, 0)}))
    assert not found.flowing


def test_rates_survive_a_restarted_counter() -> None:
    rate = _Rate()
    assert rate.update(10.0, 100) is None
    assert rate.update(11.0, 200) == 100
    assert rate.update(12.0, None) == 100
    assert rate.update(13.0, 0) is None
    assert rate.update(14.0, 30) == 30


def test_a_value_shown_twice_is_no_standstill() -> None:
    rate = _Rate()
    rate.update(10.0, 100)
    for _ in range(3):
        assert rate.update(11.0, 200) == 100
    assert rate.update(12.0, 300) == 100


@pytest.mark.parametrize(
    ("value", "text"), [(None, "?"), (0, "0"), (0.25, "0.2"), (3, "3"), (12.4, "12"), (1234567, "1,234,567")]
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "?"), (1.25, "1.2 ms"), (45.6, "46 ms"), (2500, "2.5 s")])
def test_latencies(value: float | None, text: str) -> None:
    assert duration_ms(value) == text


@pytest.mark.parametrize("width", [80, 120])
async def test_the_live_view_fits_a_terminal(collector: Collector, width: int) -> None:
    health = {"receiver-0": receiver(100.5), "processor-0": processor(1000, 0.2)}
    found = status(health)
    figures = await collector.look(found)
    figures[0].books, figures[0].books_valid = 2, 1
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(render("up", "Ctrl-C", found, figures, width))
    text = stream.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "1:05  all ready" in text
    for part in ("spot", "flowing", "100", "0.2 s", "60 ms", "1/2", "receiver-0", "redis", "8 MiB"):
        assert part in text
    assert ("12 ms" in text) == (width == 120)


async def test_why_a_feed_waits_stands_below_the_table(collector: Collector) -> None:
    failure = {"host": "stream.example:9443", "cause": "dns", "detail": "no such name"}
    found = status({"receiver-0": receiver(0, 0, failure=failure)})
    stream = io.StringIO()
    figures = await collector.look(found)
    Console(file=stream, width=80, force_terminal=False).print(render("up", "", found, figures, 80))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert "spot: cannot reach stream.example:9443: dns (no such name)" in lines
    assert "receiver-0: 2 topics wait" in lines
    assert any(line.startswith("spot  waiting ") for line in lines)


def test_a_view_higher_than_the_terminal_leaves_nothing_behind() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, height=20)
    display = LiveDisplay(console, more=lambda: Group(*(Text(f"line {number}") for number in range(40))))
    display.start()
    display.show(status({}), [])
    assert display._live is not None
    display._live.refresh()
    display.stop()
    assert "line 1" in stream.getvalue()
    assert "line 39" not in stream.getvalue()


def test_plain_lines_come_at_intervals() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream, every=0.0)
    display.start()
    display.show(status({}, phase="starting"), [])
    assert stream.getvalue() == ""
    display.show(status({}), [])
    display.say("a notice")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("services 0/0 ready, 8 MiB")
    assert second.endswith(" a notice")

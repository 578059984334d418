"""The page of limits has the code's numbers, metrics and alerts."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields
from pathlib import Path

import prometheus_client
import pytest

from feedmill.distributor import backfill, books, dispatcher, held, trades
from feedmill.distributor.settings import DistributorSettings
from feedmill.general.notify import states, watcher
from feedmill.processor import source
from feedmill.receiver import commands, headroom, rest, session
from feedmill.receiver.settings import ReceiverSettings
from feedmill.receiver.spill import spool
from feedmill.resources.feed import Receiver, Spill
from feedmill.resources.pipeline import ManagedRedis
from feedmill.shared import log, log_repeats, otlp, tracing
from feedmill_operator.build.monitoring import ALERTS

PAGE = (Path(__file__).parents[3] / "docs" / "limits.md").read_text(encoding="utf-8")
DEFAULTS = {field.name: field.default for kind in (ReceiverSettings, DistributorSettings) for field in fields(kind)}
MEMORY, SPILL, REDIS = Receiver().memory, Spill().size, ManagedRedis().memory
RATE = 10_000


def percent(share: float) -> str:
    return f"{share * 100:g} %"


def size(number: int) -> str:
    return f"{number >> 20}Mi" if number >= 1 << 20 else f"{number >> 10}Ki"


def table(after: str) -> list[list[str]]:
    """Cells of the first table after a heading."""
    section = PAGE.split(f"\n## {after}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:] if not line.startswith("|---")]


CHAIN = {
    "1 events stream": percent(float(str(DEFAULTS["memory_share"]))),
    "2 raw stream": percent(headroom.SHARE),
    "3 spill": f"{SPILL}, of which 15/16 are used",
    "4 memory": f"{percent(session.SHED_FROM)} of {MEMORY}",
}
OTHERS = {
    "frames held for replicas that do not confirm": f"the spill but its {session.CRAMPED_SHARE}th part",
    "one batch": f"{DEFAULTS['max_batch_frames']} frames, {size(int(str(DEFAULTS['max_batch_bytes'])))}",
    "one message of a venue": size(int(str(DEFAULTS["max_message"]))),
    "receiver without a spill": "all of `receiver.memory`",
    "REST requests of a receiver that wait": f"{rest.QUEUE}",
    "trades of the past that are asked for": f"while at most {percent(rest.ROOM_SHARE)} of memory is held",
    "one REST answer": size(rest.MAX_BODY),
    "commands a receiver remembers": f"{commands.REMEMBERED}",
    "pages of backfill": (
        f"{backfill.PER_INSTRUMENT} an instrument, {backfill.IN_ALL} a shard, {backfill.UNDER_WAY} under way"
    ),
    "holes in the numbers of an instrument's trades": f"{trades.MAX_HOLES}",
    "tickers kept of connections that do not count": f"{held.MOST} a connection",
    "changes kept for a book that waits for its snapshot": (
        f"{books.MAX_BUFFERED}, or {books.MAX_BUFFERED_LEVELS} levels"
    ),
    "entries a distributor or processor reads at once": f"{dispatcher.MAX_COUNT}",
    "states a notifier knows of": f"{states.MOST}",
    "notices a notifier holds while PostgreSQL is away": f"{watcher.PENDING}",
    "log lines that are alike": f"{log_repeats.ALIKE} at once, then one in {log_repeats.ALIKE_EVERY:g} s",
    "log lines of one event": f"{log_repeats.OF_EVENT} at once, then one in {log_repeats.OF_EVENT_EVERY:g} s",
    "log lines that wait to be written": f"{log.QUEUE}",
    "spans that wait to be sent": f"{otlp.QUEUE} a process, made for at most {tracing.PER_SECOND} traces a second",
}
UNBOUNDED = {"dead letters", "connections to PostgreSQL", "notices that wait for their chat"}


def test_the_links_of_the_chain_have_the_codes_numbers() -> None:
    assert {row[0]: row[2] for row in table("The chain")} == CHAIN
    assert spool.USABLE == 15 / 16
    text = " ".join(PAGE.split())
    assert f"more than {headroom.BEHIND_MS // 1000} s behind" in text
    assert f"(default {REDIS})" in text
    assert f"shed until {percent(session.SHED_UNTIL)} is reached" in text
    assert f"after {DEFAULTS['pause_limit']:g} s connections are closed" in text


def test_the_other_bounds_have_the_codes_numbers() -> None:
    found = {row[0]: row[1] for row in table("Other bounds")}
    assert {name: bound for name, bound in found.items() if name not in UNBOUNDED} == OTHERS
    assert found.keys() >= UNBOUNDED
    assert dispatcher.MAX_COUNT == source.MAX_COUNT


def test_the_seconds_are_the_bytes_divided_by_the_rate() -> None:
    bytes_of = {
        "1 events stream": float(str(DEFAULTS["memory_share"])) * REDIS.bytes,
        "2 raw stream, distributor away": headroom.SHARE * REDIS.bytes,
        "3 spill": spool.USABLE * SPILL.bytes,
        "4 memory": session.SHED_FROM * MEMORY.bytes,
    }
    rows = {row[0]: row for row in table("How long it lasts")}
    assert rows.keys() == bytes_of.keys()
    seconds = {name: int(row[3]) for name, row in rows.items()}
    assert seconds == {name: int(bytes_of[name] / (RATE * int(row[2]))) for name, row in rows.items()}
    assert "10,000 messages a second" in PAGE
    redis_away = seconds["3 spill"] + seconds["4 memory"]
    text = " ".join(PAGE.split())
    assert f"Redis away costs 3 and 4: {redis_away} seconds" in text
    assert f": {seconds['1 events stream'] + redis_away} seconds. Redis away" in text


def test_every_link_has_a_metric_and_an_alert_that_exist() -> None:
    for module in (
        "receiver.metrics",
        "distributor.metrics",
        "processor.measures",
        "shared.metrics",
        "general.notify.metrics",
    ):
        importlib.import_module(f"feedmill.{module}")
    known = prometheus_client.REGISTRY._names_to_collectors
    for row in table("The chain"):
        assert re.findall(r"`(feedmill_[a-z_]+)`", row[5]), row[0]
        assert set(re.findall(r"\[(Feedmill[A-Za-z]+)\]", row[6])) & {alert.name for alert in ALERTS}, row[0]
    for metric in re.findall(r"\bfeedmill_[a-z_]+\b", PAGE):
        assert metric in known, metric


@pytest.mark.parametrize("alert", ["FeedmillSpillFilling", "FeedmillShedding", "FeedmillRedisNearlyFull"])
def test_what_is_at_risk_is_told(alert: str) -> None:
    assert f"[{alert}](runbooks/{alert}.md)" in PAGE

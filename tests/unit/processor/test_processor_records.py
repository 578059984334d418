"""What the database tells, as metrics: when a backup is overdue, and that nothing is shown that is not known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY

from feedmill.processor import records
from feedmill.processor.due import DRILL, Done, Found, Plan
from feedmill.processor.settings import due_of
from feedmill.resources.load import load_texts
from feedmill.resources.types import Schedule

SECOND = 1_000_000_000
DAILY = Plan({"logical": Schedule("0 3 * * *")}, "UTC")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


NOTHING = Found(1 << 20, {}, {}, None, {}, {}, 0, None)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    records.forget()


@pytest.mark.parametrize(
    ("since", "last", "now", "seconds"),
    [
        (None, None, "2026-11-26T12:00", None),  # nothing to back up yet
        ("2026-11-26T10:00", None, "2026-11-26T12:00", 0.0),  # its first one is due tomorrow
        ("2026-11-26T10:00", None, "2026-11-27T03:10", 600.0),
        ("2026-11-20T10:00", "2026-11-26T03:00", "2026-11-27T02:59", 0.0),
        ("2026-11-20T10:00", "2026-11-26T03:00", "2026-11-27T04:00", 3600.0),
        ("2026-11-20T10:00", "2026-11-24T03:00", "2026-11-26T03:00", 86400.0),  # since the first one that is missing
        ("2026-11-20T10:00", "2026-11-26T02:00", "2026-11-26T03:01", 60.0),  # one by hand is none of the schedule
    ],
)
def test_a_backup_is_overdue_since_the_first_time_it_was_due(
    since: str | None, last: str | None, now: str, seconds: float | None
) -> None:
    good = {"logical": Done(at(last), at(last) + SECOND)} if last else {}
    found = replace(NOTHING, good=good, since_ns=at(since) if since else None)
    assert DAILY.overdue("logical", found, at(now)) == seconds
    assert DAILY.overdue(DRILL, found, at(now)) is None


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"feedmill_database_{name}", labels)


def test_what_was_found_is_shown_and_what_went_is_not() -> None:
    now = at("2026-11-27T04:00")
    good = {"logical": Done(at("2026-11-26T03:00"), at("2026-11-26T03:02"), 5000), DRILL: Done(now, now + SECOND)}
    failed = {"logical": True, DRILL: False}
    records.show(Found(77, good, failed, now, {"bloat": 2}, {"Trades": 3}, 4, None), DAILY, now)
    assert value("backup_succeeded_timestamp_seconds", kind="logical") == at("2026-11-26T03:00") / SECOND
    assert (value("backup_failed", kind="logical"), value("backup_failed", kind="drill")) == (1, 0)
    assert value("backup_overdue_seconds", kind="logical") == 3600
    assert value("backup_took_seconds", kind="logical") == 120
    assert value("backup_size_bytes", kind="logical") == 5000
    assert value("backup_size_bytes", kind="drill") is None, "a drill has no size"
    assert (value("open_gaps", channel="Trades"), value("dead_letters"), value("size_bytes")) == (3, 4, 77)
    assert value("maintained_timestamp_seconds") == now / SECOND
    assert value("findings", kind="bloat") == 2
    records.show(replace(NOTHING, failed={"logical": True, "base": True, DRILL: True}), DAILY, now)
    assert value("backup_failed", kind="base") is None, "none is made any more, so none can make it good"
    assert (value("backup_failed", kind="logical"), value("backup_failed", kind="drill")) == (1, 1)
    records.show(replace(NOTHING, failed={"logical": True, DRILL: True}), Plan(), now)
    assert value("backup_failed", kind="drill") is None
    for gone in (
        "backup_succeeded_timestamp_seconds",
        "backup_failed",
        "backup_overdue_seconds",
        "backup_took_seconds",
    ):
        assert value(f"backup_{gone}", kind="logical") is None
    assert value("open_gaps", channel="Trades") is None
    assert math.isnan(value("maintained_timestamp_seconds") or 0.0)
    records.forget()
    assert math.isnan(value("size_bytes") or 0.0)


BACKUP = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec:
  redis: {managed: {}}
  postgres: {managed: {}}
  backup:
    schedule: "30 1 * * *"
    timeZone: Europe/Berlin
    destination: {folder: {path: backups}}
    encryption: {keySecretRef: {name: backup-key, key: key}}
    %s
"""


@pytest.mark.parametrize(
    ("more", "schedules"),
    [
        ("retention: {}", {"logical": "30 1 * * *", DRILL: "0 5 * * 0"}),
        ("continuous: {enabled: true}", {"logical": "30 1 * * *", "base": "0 2 * * 0", DRILL: "0 5 * * 0"}),
        ("verify: {suspend: true}", {"logical": "30 1 * * *"}),
        ("suspend: true", {}),
    ],
)
def test_what_is_due_is_what_the_manifest_asks_for(more: str, schedules: dict[str, str]) -> None:
    (pipeline,) = load_texts({"main.yaml": BACKUP % more}, local=True).pipelines.values()
    plan = due_of(pipeline)
    assert plan.schedules == schedules
    assert plan.time_zone == ("Europe/Berlin" if schedules else "UTC")

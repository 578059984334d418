"""What is due where there are no CronJobs, as the destination has it."""

from __future__ import annotations

import types
from datetime import UTC, datetime
from typing import Any, cast

from feedmill.general.backup.catalogue import Catalogue, Entry
from feedmill.general.backup.manifest import Drill, Manifest
from feedmill.general.backup.schedules import first_tasks
from feedmill.general.backup.stores.base import Found
from feedmill.resources.backup_policy import Backup


def at(day: int, hour: int = 0) -> int:
    return int(datetime(2026, 11, day, hour, tzinfo=UTC).timestamp()) * 1_000_000_000


def target(**more: Any) -> Any:
    spec = Backup.model_validate(
        {
            "schedule": "0 3 * * *",
            "destination": {"folder": {"path": "x"}},
            "encryption": {"keySecretRef": {"name": "k", "key": "k"}},
            "verify": {"schedule": "0 5 * * 0"},
            **more,
        }
    )
    return types.SimpleNamespace(spec=spec)


def catalogue(made_ns: int | None, drilled_ns: int | None = None) -> Catalogue:
    entries: tuple[Entry, ...] = ()
    if made_ns is not None:
        manifest = cast(Any, Manifest)(
            id="20261126T030000Z-logical-000001", kind="logical", namespace="d", pipeline="m", object="o", size_bytes=1,
            sha256="", key_id="k", plain_bytes=1, started_ns=made_ns, ended_ns=made_ns, snapshot_ns=made_ns,
            schema_version="0003", feedmill_version="0", server_version="18",
        )  # fmt: skip
        entries = (Entry(manifest, 1, None),)
    drills: tuple[tuple[Found, Drill], ...] = ()
    if drilled_ns is not None:
        drill = Drill(
            id="d", backup_id="b", passed=True, started_ns=drilled_ns, ended_ns=drilled_ns, feedmill_version="0"
        )
        drills = ((Found("drills/d.json", 1, drilled_ns), drill),)
    return Catalogue(entries, (), (), drills)


def due(*args: Any, **more: Any) -> dict[str, int | None]:
    return {task.command: task.due_ns for task in first_tasks(target(**more), catalogue(*args), at(26, 12))}


def test_the_first_backup_is_made_at_once_and_drilled_by_schedule() -> None:
    assert due(None) == {"run": at(26, 12), "verify": at(29, 5)}


def test_what_was_due_while_nothing_ran_is_made_up_for() -> None:
    assert due(at(24, 3), at(15, 5)) == {"run": at(25, 3), "verify": at(22, 5)}


def test_what_is_not_due_waits() -> None:
    assert due(at(26, 3), at(22, 5)) == {"run": at(27, 3), "verify": at(29, 5)}


def test_the_zone_of_the_schedule() -> None:
    assert due(at(26, 3), timeZone="Asia/Tokyo")["run"] == at(26, 18)


def test_no_drills_where_they_are_suspended() -> None:
    assert set(due(None, verify={"suspend": True})) == {"run"}

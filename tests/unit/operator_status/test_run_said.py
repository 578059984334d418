"""What a run says of itself is read with care: it comes from a pod."""

from __future__ import annotations

import json
from typing import Any

import pytest

from feedmill_operator import names
from feedmill_operator.reconcile.pods import pod_facts
from feedmill_operator.reconcile.run_said import RunSaid, read_run, read_text

GOOD = {"phase": "Running", "progress": 47, "backupId": "20261126T030000Z-logical-3f9a1c", "rows": 5}


def test_a_good_one() -> None:
    fields = {"backupId": GOOD["backupId"], "rows": 5}
    assert read_run(GOOD) == RunSaid("Running", 45, "", fields)
    assert read_text(json.dumps(GOOD) + "\n") == read_run(GOOD)


@pytest.mark.parametrize("text", ["", "Traceback", "{", "[1]", "{}", '{"phase": "Done"}', '{"phase": 1}', "{" * 5000])
def test_what_is_none(text: str) -> None:
    assert read_text(text) is None


def test_what_cannot_be_is_left_out() -> None:
    odd: dict[str, Any] = {
        "phase": "Failed", "progress": 400, "rows": -1, "sizeBytes": 2**60, "tables": True, "gaps": "3",
        "restoredTo": "yesterday", "contentAt": "2026-11-26T03:00:00Z; rm", "keyId": ["x"], "sha256": "a" * 500,
        "message": "m" * 5000, "conditions": [{"type": "Accepted"}], "job": "mine",
    }  # fmt: skip
    said = read_run(odd)
    assert said is not None
    assert said.progress == 100
    assert len(said.message) == 2000
    assert said.fields.keys() == {"sha256"}
    assert len(str(said.fields["sha256"])) == 64


def test_only_pods_of_runs_are_read_so() -> None:
    ended = {"name": "backup-run", "state": {"terminated": {"exitCode": 0, "message": json.dumps(GOOD)}}}
    pod: dict[str, Any] = {
        "metadata": {"name": "p", "namespace": "ns", "labels": {names.RUN: "logical"}},
        "status": {"phase": "Succeeded", "containerStatuses": [ended]},
    }
    assert pod_facts(pod).said == read_run(GOOD)
    pod["metadata"]["labels"] = {}
    assert pod_facts(pod).said is None

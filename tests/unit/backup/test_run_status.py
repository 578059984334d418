"""What a run says of itself: the operator reads it back, in whatever state the file was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedmill.cli.backup_errors import exit_code, message
from feedmill.general.backup import status
from feedmill.general.backup.choice import NoSuchBackup
from feedmill.general.backup.seal import ChunkDamaged, KeyMissing
from feedmill.general.backup.status import MAX_BYTES, RunStatus
from feedmill.general.backup.stores.base import StoreAway, StoreRefused
from feedmill_operator.reconcile.run_said import read_run, read_text


def said(file: Path) -> Any:
    found = read_text(file.read_text())
    assert found is not None
    return found


def test_progress_then_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "EVERY", 0.0)
    run = RunStatus(tmp_path / "status")
    run.progress("dump", 1_000, 0)
    assert (said(tmp_path / "status").phase, said(tmp_path / "status").progress) == ("Running", None)
    run.progress("dump", 500, 1_000)
    assert said(tmp_path / "status").progress == 50
    run.progress("dump", 2_000, 1_000)
    assert said(tmp_path / "status").progress == 95
    run.succeeded("done", {"backupId": "x", "rows": 3})
    found = said(tmp_path / "status")
    assert (found.phase, found.progress, found.message) == ("Succeeded", 100, "done")
    assert found.fields == {"backupId": "x", "rows": 3}
    assert read_run(run.document) == found


def test_a_shorter_text_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    file = tmp_path / "status"
    file.write_text("x" * 9000)
    RunStatus(file).failed("no")
    assert json.loads(file.read_text()) == {"phase": "Failed", "message": "no"}


def test_the_last_words_fit(tmp_path: Path) -> None:
    run = RunStatus(tmp_path / "status")
    run.succeeded("é" * 2000, {"object": "o" * 900})
    assert len((tmp_path / "status").read_bytes()) <= MAX_BYTES
    assert said(tmp_path / "status").fields["object"] == "o" * 900


def test_a_file_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    RunStatus(tmp_path / "no" / "folder").failed("x")
    RunStatus(None).failed("x")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoSuchBackup("none"), 2), (KeyMissing("k"), 2), (StoreRefused("r"), 2), (StoreAway("a"), 1),
        (ChunkDamaged("c"), 1), (ConnectionRefusedError(111, "refused"), 1), (KeyError("a fault"), None),
    ],
)  # fmt: skip
def test_exit_codes(error: Exception, code: int | None) -> None:
    assert exit_code(error) == code
    assert message(error)

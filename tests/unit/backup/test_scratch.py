"""Folders for what is put aside: gone afterwards, and named where they cannot be made."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import pytest

from feedmill.general.backup import scratch
from feedmill.general.backup.pitr import replayed
from feedmill.general.backup.progress import silent
from feedmill.general.backup.scratch import scratch_folder
from feedmill.local.embedded.errors import EmbeddedError
from feedmill.local.embedded.files import DirLock


async def test_it_is_gone_afterwards_with_what_killed_processes_left_beside_it(tmp_path: Path) -> None:
    left = tmp_path / "test-left"
    (left / "data").mkdir(parents=True)
    (left / "lock").touch()
    async with scratch_folder("test-", tmp_path) as folder:
        (folder / "file").touch()
        assert not left.exists()
        async with scratch_folder("test-", tmp_path):
            assert (folder / "file").exists(), "one that is in use stays"
    assert list(tmp_path.iterdir()) == []


async def test_what_a_server_still_works_in_is_left_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner was killed; the server itself ends later."""
    monkeypatch.setattr(scratch, "_ENDING", 0.1)
    left = tmp_path / "test-left"
    (left / "data").mkdir(parents=True)
    (left / "lock").touch()
    server = DirLock(left / "data", "scratch folder")
    server.acquire(timeout=1.0)
    async with scratch_folder("test-", tmp_path):
        assert (left / "data" / "lock").exists()
        assert (left / "lock").exists(), "it is still told from one that was made a moment ago"
        server.release()
        async with scratch_folder("test-", tmp_path):
            assert not left.exists()


async def test_a_parent_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"nowhere: cannot be used .*No such file.*--scratch-dir"):
        async with scratch_folder("test-", tmp_path / "nowhere"):
            pass


async def test_a_path_that_is_too_long_for_a_socket_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    nothing = cast("Any", None)
    with pytest.raises(EmbeddedError, match="too long a path for a socket: set TMPDIR"):
        async with replayed(nothing, nothing, nothing, nothing, None, tmp_path, silent):
            pass
    assert list(long.iterdir()) == []

"""Which backup is taken: the newest good one, or the one that is named, if it is whole."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.general.backup.catalogue import Catalogue, Entry
from feedmill.general.backup.choice import NoSuchBackup, choose
from feedmill.general.backup.content import ContentError
from feedmill.general.backup.manifest import Drill, Manifest


def entry(number: int, *, stored: int | None = 10, passed: bool | None = None) -> Entry:
    name = f"20261126T03000{number}Z-logical-00000{number}"
    manifest = Manifest(
        id=name, kind="logical", namespace="default", pipeline="main", object="o", size_bytes=10, sha256="", key_id="k",
        plain_bytes=1, started_ns=number, ended_ns=number, snapshot_ns=number, schema_version="0003",
        feedmill_version="0", server_version="18",
    )  # fmt: skip
    drill = None
    if passed is not None:
        drill = Drill(id="d", backup_id=name, passed=passed, started_ns=1, ended_ns=2, feedmill_version="0")
    return Entry(manifest, stored, drill)


def catalogue(*entries: Entry) -> Catalogue:
    return Catalogue(tuple(sorted(entries, key=lambda each: -each.manifest.snapshot_ns)), (), (), ())


def chosen(found: Catalogue, backup_id: str | None = None) -> Any:
    return choose(found, backup_id, "folder x").manifest.snapshot_ns


def test_the_newest_good_one() -> None:
    assert chosen(catalogue(entry(1), entry(2), entry(3, stored=9), entry(4, passed=False))) == 2


def test_none() -> None:
    with pytest.raises(NoSuchBackup, match="folder x: holds no good backup: make one"):
        chosen(catalogue())
    with pytest.raises(NoSuchBackup, match=r"\(1 are damaged"):
        chosen(catalogue(entry(1, stored=None)))


def test_the_one_that_is_named() -> None:
    found = catalogue(entry(1), entry(2, stored=9), entry(3, passed=False))
    assert chosen(found, entry(1).manifest.id) == 1
    assert chosen(found, entry(3).manifest.id) == 3, "a person may try what a drill could not restore"
    with pytest.raises(ContentError, match="9 bytes of 10 bytes are there"):
        chosen(found, entry(2).manifest.id)
    with pytest.raises(NoSuchBackup, match="holds no backup 'x'"):
        chosen(found, "x")

"""Names of objects, manifests and records of drills."""

from __future__ import annotations

import json

import pytest

from feedmill.general.backup.manifest import Drill, Manifest, ManifestError, decode_drill, decode_manifest, encode
from feedmill.general.backup.names import Names, backup_of, kind_of, new_id, wal_of
from feedmill.general.backup.stores.base import checked

NAMES = Names("default", "main")
ID = "20261126T030000Z-logical-3f9a1c"
AT = 1_795_662_000_000_000_000
MANIFEST = Manifest(
    id=ID, kind="logical", namespace="default", pipeline="main", object=NAMES.data(ID), size_bytes=3, sha256="ab",
    plain_bytes=2, key_id="k1", started_ns=AT, ended_ns=AT + 1_500_000_000, snapshot_ns=AT, schema_version="0003",
    feedmill_version="0.1.0", server_version="18.6", row_counts={"trades": 2**60},
)  # fmt: skip


def test_an_id_says_when_and_what_and_sorts_by_time() -> None:
    made = new_id("base", AT)
    assert made.startswith("20261126T030000Z-base-")
    assert kind_of(made) == "base"
    assert new_id("base", AT) != made
    assert new_id("base", AT + 10**9) > made


def test_names_lead_back_to_what_they_are_of() -> None:
    assert NAMES.data(ID) == f"default/main/logical/{ID}/data"
    assert backup_of(NAMES.data(ID)) == backup_of(NAMES.manifest(ID)) == ID
    assert wal_of(NAMES.wal("7421", "0000000100000000000000A5")) == ("7421", "0000000100000000000000A5")
    assert NAMES.wal("7421", "0000000A.history") == "default/main/wal/7421/0000000A/0000000A.history"
    for name in (NAMES.data(ID), NAMES.manifest(ID), NAMES.drill("d"), NAMES.wal("7421", "0000000A.history")):
        assert checked(name) == name


@pytest.mark.parametrize("name", ["default/main/logical/x/data", f"default/main/logical/{ID}/other", ID])
def test_other_objects_belong_to_no_backup(name: str) -> None:
    assert backup_of(name) is None


def test_an_id_that_is_none_makes_no_name() -> None:
    with pytest.raises(ValueError, match="not a backup's id"):
        NAMES.data("../../etc/passwd")
    with pytest.raises(ValueError, match="not a WAL file"):
        NAMES.wal("7421", "pg_control")


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.b", "a b", "a\nb"])
def test_names_that_no_object_may_have(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        checked(name)


def test_a_manifest_is_plain_json_that_says_its_format() -> None:
    content = encode(MANIFEST)
    assert decode_manifest(content, "m") == MANIFEST
    document = json.loads(content)
    assert document["format"] == 1
    assert document["rowCounts"] == {"trades": 2**60}
    assert MANIFEST.seconds == 1.5


def test_a_field_that_a_later_version_added_does_not_matter() -> None:
    assert decode_manifest(encode(MANIFEST).replace(b"{", b'{"more": 1,', 1), "m") == MANIFEST


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encode(MANIFEST).replace(b'"format": 1', b'"format": 2'), "m: has format 2, this version reads 1"),
        (encode(MANIFEST)[:-20], "m: is not a backup's manifest"),
        (b"{}", "m: is not a backup's manifest"),
        (b"\xff\xfe", "m: is not a backup's manifest"),
        (encode(MANIFEST).replace(b'"kind": "logical"', b'"kind": "base"'), "is not the id of a base backup"),
    ],
    ids=["newer", "torn", "empty", "binary", "kind"],
)
def test_a_manifest_that_cannot_be_used_is_told(content: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        decode_manifest(content, "m")


def test_a_drill_goes_round() -> None:
    drill = Drill(id="d", backup_id=ID, passed=False, started_ns=1, ended_ns=2, feedmill_version="0.1.0", error="no")
    assert decode_drill(encode(drill), "d") == drill
    with pytest.raises(ManifestError, match="not the record of a drill"):
        decode_drill(b"[]", "d")

"""Manifests and records of drills: written and read again; those that are torn, altered or newer are told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from feedmill.general.backup.manifest import Drill, Manifest, ManifestError, decode_drill, decode_manifest, encode

ID = "20261126T030000Z-logical-3f9a1c"
MANIFEST = Manifest(
    id=ID, kind="logical", namespace="default", pipeline="main", object=f"default/main/logical/{ID}/data",
    size_bytes=2**53 + 1, sha256="ab" * 32, plain_bytes=7, key_id="k1", started_ns=1, ended_ns=2_500_000_001,
    snapshot_ns=1, schema_version="0003", feedmill_version="0.1.0", server_version="18.6", row_counts={"trades": 3},
)  # fmt: skip
DRILL = Drill(id="d", backup_id=ID, passed=False, started_ns=1, ended_ns=2, feedmill_version="0.1.0", error="é\n")


def test_both_are_read_as_they_were_written() -> None:
    assert decode_manifest(encode(MANIFEST), "m") == MANIFEST
    assert decode_drill(encode(DRILL), "d") == DRILL
    assert MANIFEST.seconds == 2.5


@pytest.mark.parametrize("decode", [decode_manifest, decode_drill])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"id": "\xe9"}', b'{"format": "1"}']
)
def test_what_is_none_is_told_with_its_name(decode: Any, content: bytes) -> None:
    with pytest.raises(ManifestError, match=r"^somewhere: is not "):
        decode(content, "somewhere")


@pytest.mark.parametrize(("what", "decode"), [(MANIFEST, decode_manifest), (DRILL, decode_drill)])
def test_a_bit_that_flipped_is_told_or_changes_a_value_but_ends_nothing(what: Any, decode: Any) -> None:
    content = encode(what)
    told = 0
    for at in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            try:
                decode(bytes(flipped), "m")
            except ManifestError:
                told += 1
    assert told > len(content), "each that is no ASCII any more, at the least"


def test_a_newer_format_names_the_remedy() -> None:
    newer = msgspec.structs.replace(MANIFEST, format=2)
    with pytest.raises(ManifestError, match="has format 2, this version reads 1: use a newer feedmill"):
        decode_manifest(encode(newer), "m")


@pytest.mark.parametrize("made", ["20261126T030000Z-base-3f9a1c", "latest", "../x"])
def test_an_id_that_is_none_of_its_kind_is_refused(made: str) -> None:
    with pytest.raises(ManifestError, match="is not the id of a logical backup"):
        decode_manifest(encode(msgspec.structs.replace(MANIFEST, id=made)), "m")

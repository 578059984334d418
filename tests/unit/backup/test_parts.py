"""Sizes of the parts of an upload."""

from __future__ import annotations

from feedmill.general.backup.stores.remote import MAX_PARTS, PART_BYTES, part_bytes


def test_parts_grow_so_that_all_of_them_hold_a_large_object() -> None:
    sizes = [part_bytes(number) for number in range(MAX_PARTS)]
    assert sizes == sorted(sizes)
    assert min(sizes) == PART_BYTES == 5 * 2**20, "the least that S3 takes of any part but the last"
    assert max(sizes) < 5 * 2**30, "the most that S3 takes"
    assert sum(sizes) >= 770 * 2**30
    assert sum(size for size in sizes if size <= 10 * 2**20) >= 21 * 2**30

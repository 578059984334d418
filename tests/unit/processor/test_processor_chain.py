"""Continuity of commits: nothing is passed over in silence, whatever a server forgets or trims."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.processor.chain import BEGIN, Break, Chain, Link, id_of
from feedmill.shared.keys import ShardRef

REF = ShardRef("test", "spot", 0)


def link(n: int, life: str = "a", before: str | None = None) -> Link:
    return Link(n, f"{life}{n}", before if before is not None else (f"{life}{n - 1}" if n > 1 else ""))


def test_a_chain_without_holes() -> None:
    chain = Chain(REF, 0, "", BEGIN)
    for n in range(1, 5):
        assert chain.follow(link(n), f"{n}-0", 9) is None
    assert (chain.n, chain.commit_id, chain.cursor, chain.rereading) == (4, "a4", "4-0", False)


def test_a_hole_means_reading_again_and_only_what_is_gone_is_a_gap() -> None:
    chain = Chain(REF, 3, "a3", "3-0")
    with pytest.raises(Break, match="commit 6 follows a5, not a3"):
        chain.follow(link(6), "6-0", 9)
    assert (chain.n, chain.cursor) == (3, "3-0")  # Nothing is taken.
    chain.reread()
    assert (chain.cursor, chain.rereading) == (BEGIN, True)
    gap = chain.follow(link(6), "6-0", 9)
    assert gap is not None
    assert (gap.id, gap.symbol, gap.channel, gap.cause, gap.state) == (
        "test.spot.0/events/4",
        "",
        "events",
        "redis_lost",
        "open",
    )
    assert (gap.from_seq, gap.to_seq, gap.missing, gap.detected_ns, gap.revision) == (4, 5, [(4, 5)], 9, 1)
    assert chain.follow(link(7), "7-0", 9) is None
    chain.tip_reached()
    with pytest.raises(Break):
        chain.follow(link(9), "9-0", 9)


def test_a_tail_forgotten_and_emitted_anew_is_no_gap() -> None:
    chain = Chain(REF, 8, "a8", "8-0")
    with pytest.raises(Break):
        chain.follow(Link(6, "b6", "a5"), "12-0", 9)
    chain.reread()
    for item in (link(4), link(5), Link(6, "b6", "a5"), Link(7, "b7", "b6")):
        assert chain.follow(item, f"{item.n}-0", 9) is None
    assert (chain.n, chain.commit_id) == (7, "b7")


def test_a_stranger_is_passed_over() -> None:
    chain = Chain(REF, 3, "a3", "3-0")
    chain.skip("3-5")
    assert chain.cursor == "3-5"
    assert chain.follow(link(4), "4-0", 9) is None


@given(st.integers(0, 12), st.sets(st.integers(1, 20)))
def test_what_is_kept_and_what_is_gone_is_told_exactly(stored: int, kept: set[int]) -> None:
    """Twenty commits; ``stored`` are in the tables, ``kept`` are still in the stream."""
    chain = Chain(REF, stored, f"a{stored}" if stored else "", f"{stored}-0")
    read: set[int] = set()
    gone: set[int] = set()
    restarts = 0
    entries = sorted(kept)
    while left := [n for n in entries if n > id_of(chain.cursor)[0]]:
        try:
            gap = chain.follow(link(left[0]), f"{left[0]}-0", 9)
        except Break:
            restarts += 1
            chain.reread()
            continue
        read.add(left[0])
        if gap is not None:
            gone |= set(range(gap.from_seq, gap.to_seq + 1))
    assert restarts <= 1
    after = {n for n in kept if n > stored}
    assert read >= after
    # Everything up to the last one read is stored, read or told to be gone; the gaps name nothing that is there.
    assert set(range(stored + 1, max(after, default=stored) + 1)) == after | (gone - set(range(1, stored + 1)))
    assert not gone & kept


def test_ids_are_compared_as_numbers() -> None:
    assert id_of("10-2") > id_of("9-11")
    assert id_of("5-10") > id_of("5-9")
    assert id_of("7") == (7, 0)

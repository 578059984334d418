"""Continuity of commits: nothing is passed over in silence, whatever a server forgets or trims."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.processor.chain import Break, Chain, Link, Loss
from feedmill.shared.redis.ids import BEGIN, id_of


def link(n: int, life: str = "a", before: str | None = None) -> Link:
    return Link(n, f"{life}{n}", before if before is not None else (f"{life}{n - 1}" if n > 1 else ""))


def step(chain: Chain, item: Link, stream_id: str) -> Loss | None:
    loss = chain.judge(item, stream_id)
    chain.follow(item, stream_id)
    return loss


def test_a_chain_without_holes() -> None:
    chain = Chain(0, "", BEGIN)
    for n in range(1, 5):
        assert step(chain, link(n), f"{n}-0") is None
    assert (chain.n, chain.commit_id, chain.cursor, chain.rereading) == (4, "a4", "4-0", False)


def test_a_hole_means_reading_again_and_only_what_is_gone_is_a_gap() -> None:
    chain = Chain(3, "a3", "3-0")
    with pytest.raises(Break, match="commit 6 follows a5, not a3"):
        chain.judge(link(6), "6-0")
    assert (chain.n, chain.cursor) == (3, "3-0")  # Nothing is taken.
    chain.reread()
    assert (chain.cursor, chain.rereading) == (BEGIN, True)
    assert step(chain, link(6), "6-0") == Loss(4, 5, "3-0", "6-0")
    assert step(chain, link(7), "7-0") is None
    chain.tip_reached()
    with pytest.raises(Break):
        chain.judge(link(9), "9-0")


def test_a_tail_forgotten_and_emitted_anew_is_no_gap() -> None:
    chain = Chain(8, "a8", "8-0")
    with pytest.raises(Break):
        chain.judge(Link(6, "b6", "a5"), "12-0")
    chain.reread()
    for item in (link(4), link(5), Link(6, "b6", "a5"), Link(7, "b7", "b6")):
        assert step(chain, item, f"{item.n}-0") is None
    assert (chain.n, chain.commit_id) == (7, "b7")


def test_a_chain_that_begins_anew_is_a_loss_of_unknown_length() -> None:
    chain = Chain(8, "a8", "800-0")
    chain.reread()
    assert step(chain, link(1, "b"), "900-0") == Loss(9, -1, "800-0", "900-0")
    assert step(chain, link(2, "b"), "901-0") is None


def test_the_beginning_of_the_same_chain_may_be_that_of_another_by_a_clock_behind() -> None:
    chain = Chain(8, "a8", "800-0")
    chain.reread()
    assert step(chain, link(1), "100-0") == Loss(9, -1, "800-0", "100-0", certain=False)
    for n in range(2, 9):
        assert step(chain, link(n), f"{n}00-0") is None
    # In the same stream, as when only the distributor's checkpoint was deleted.
    assert step(chain, link(1, "b"), "900-0") == Loss(9, -1, "800-0", "900-0")


def test_the_first_start_of_all_loses_nothing() -> None:
    chain = Chain(0, "", BEGIN)
    assert step(chain, link(1), "5-0") is None
    chain = Chain(0, "", BEGIN)
    chain.reread()
    assert step(chain, link(4), "9-0") == Loss(1, 3, BEGIN, "9-0")


def test_a_stranger_is_passed_over() -> None:
    chain = Chain(3, "a3", "3-0")
    chain.skip("3-5")
    assert chain.cursor == "3-5"
    assert step(chain, link(4), "4-0") is None


@given(st.integers(0, 12), st.sets(st.integers(1, 20)))
def test_what_is_kept_and_what_is_gone_is_told_exactly(stored: int, kept: set[int]) -> None:
    """Twenty commits; ``stored`` are in the tables, ``kept`` are still in the stream."""
    chain = Chain(stored, f"a{stored}" if stored else "", f"{stored}-0")
    read: set[int] = set()
    gone: set[int] = set()
    restarts = 0
    entries = sorted(kept)
    while left := [n for n in entries if n > id_of(chain.cursor)[0]]:
        try:
            loss = step(chain, link(left[0]), f"{left[0]}-0")
        except Break:
            restarts += 1
            chain.reread()
            continue
        read.add(left[0])
        if loss is not None and loss.last >= 0:
            gone |= set(range(loss.first, loss.last + 1))
        assert loss is None or loss.last >= 0 or not loss.certain
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

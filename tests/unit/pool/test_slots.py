"""The slot of an account is constant, and all slots are used about alike."""

from __future__ import annotations

from collections import Counter

from feedmill.pool.slots import SLOTS, slot_of, slots_of


def test_the_slot_of_a_name_is_the_same_for_ever() -> None:
    # Written down: members of two versions must agree.
    assert {name: slot_of(name) for name in ("default/main", "default/second", "desk/options")} == {
        "default/main": 45,
        "default/second": 17,
        "desk/options": 3,
    }


def test_a_thousand_accounts_fill_every_slot_about_alike() -> None:
    names = [f"default/binance-spot-{number:04}" for number in range(1000)]
    counts = Counter(map(slot_of, names))
    assert slots_of(names) == set(range(SLOTS))
    assert max(counts.values()) <= 3 * 1000 / SLOTS
    assert slots_of([]) == set()

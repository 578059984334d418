"""Two lanes of requests: snapshots first, trades a quarter of the weight while both wait, nothing lost or doubled."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from feedmill.receiver.lanes import Lanes


def filled(snapshots: int, pages: int, snapshot: float = 250.0, page: float = 25.0) -> Lanes[str]:
    lanes: Lanes[str] = Lanes(1000)
    for _ in range(pages):
        assert lanes.put("page", page, yields=True)
    for _ in range(snapshots):
        assert lanes.put("snapshot", snapshot, yields=False)
    return lanes


async def test_a_snapshot_goes_first_and_a_page_waits_for_one_only() -> None:
    lanes = filled(3, 2)
    assert [await lanes.get() for _ in range(5)] == ["snapshot", "page", "page", "snapshot", "snapshot"]


async def test_of_many_of_both_trades_get_a_quarter_of_the_weight() -> None:
    lanes = filled(100, 500)
    taken = [await lanes.get() for _ in range(200)]
    weights = {name: taken.count(name) * weight for name, weight in (("snapshot", 250.0), ("page", 25.0))}
    assert 0.2 <= weights["page"] / sum(weights.values()) <= 0.3


async def test_one_who_waits_gets_what_comes() -> None:
    lanes: Lanes[str] = Lanes(1)
    waiting = [asyncio.create_task(lanes.get()) for _ in range(2)]
    await asyncio.sleep(0)
    assert lanes.put("a", 1.0, yields=True)
    assert not lanes.put("b", 1.0, yields=False)
    done, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == ["a"]
    assert lanes.put("b", 1.0, yields=False)
    assert await left.pop() == "b"


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 250)), max_size=80))
def test_each_comes_out_once_and_a_lane_in_its_order(steps: list[tuple[bool, bool, int]]) -> None:
    async def run() -> None:
        lanes: Lanes[tuple[int, bool]] = Lanes(1000)
        came: list[tuple[int, bool]] = []
        held = 0
        for number, (put, yields, weight) in enumerate(steps):
            if put:
                lanes.put((number, yields), weight, yields=yields)
                held += 1
            elif held:
                came.append(await lanes.get())
                held -= 1
        while held:
            came.append(await lanes.get())
            held -= 1
        for lane in (False, True):
            put = [number for number, step in enumerate(steps) if step[0] and step[1] is lane]
            assert [number for number, yields in came if yields is lane] == put

    asyncio.run(run())

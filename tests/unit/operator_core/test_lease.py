"""Leader election against a store of Leases that checks resourceVersions, by a virtual clock."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill_operator.config import LeaseOptions
from feedmill_operator.kube.api import ApiError, Kind, Manifest
from feedmill_operator.kube.lease import Elector, LeaseLost

Virtual = Callable[[Callable[[], Awaitable[Any]]], Any]
OPTIONS = LeaseOptions()


class Leases:
    """What of the API server an elector uses. ``away``: nobody gets an answer; ``cut``: these do not."""

    def __init__(self) -> None:
        self.lease: Manifest | None = None
        self.version = 0
        self.away = False
        self.cut: set[str] = set()
        self.lose_answer = False

    def of(self, identity: str) -> Any:
        return _Client(self, identity)


class _Client:
    def __init__(self, leases: Leases, identity: str) -> None:
        self._leases, self._identity = leases, identity

    async def _ask(self) -> Leases:
        await asyncio.sleep(0.01)
        if self._leases.away or self._identity in self._leases.cut:
            raise ApiError(0, "", "connection refused")
        return self._leases

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        return copy.deepcopy((await self._ask()).lease)

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        leases = await self._ask()
        if leases.lease is not None:
            raise ApiError(409, "AlreadyExists", "there is one")
        return self._store(leases, manifest)

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        leases = await self._ask()
        if leases.lease is None:
            raise ApiError(404, "NotFound", "there is none")
        if manifest["metadata"].get("resourceVersion") != leases.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "it was changed")
        return self._store(leases, manifest)

    def _store(self, leases: Leases, manifest: Manifest) -> Manifest:
        leases.version += 1
        leases.lease = copy.deepcopy(manifest)
        leases.lease["metadata"]["resourceVersion"] = str(leases.version)
        if leases.lose_answer:
            leases.lose_answer = False
            raise ApiError(0, "", "the connection broke after the write")
        return copy.deepcopy(leases.lease)


def elector(leases: Leases, identity: str, seed: int = 0) -> Elector:
    return Elector(leases.of(identity), "ns", OPTIONS, identity, random_source=random.Random(f"{identity}{seed}"))


def now() -> float:
    return asyncio.get_running_loop().time()


def test_the_first_leads_at_once_and_the_second_waits(virtual: Virtual) -> None:
    async def work() -> None:
        leases = Leases()
        first, second = elector(leases, "a"), elector(leases, "b")
        await first.acquire()
        assert first.leading
        holding = asyncio.create_task(first.hold())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(300)
        assert not waiting.done()
        assert second.holder == "a"
        assert not holding.done()
        for task in (holding, waiting):
            task.cancel()

    virtual(work)


@pytest.mark.parametrize("seed", range(8))
def test_a_killed_leader_is_followed_within_20_s_and_not_before_its_lease_ran_out(virtual: Virtual, seed: int) -> None:
    async def work() -> None:
        leases = Leases()
        first, second = elector(leases, "a", seed), elector(leases, "b", seed)
        await first.acquire()
        holding = asyncio.create_task(first.hold())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(30 + seed * 0.37)
        holding.cancel()
        killed = now()
        await waiting
        assert OPTIONS.duration - 1.2 * OPTIONS.retry - 0.1 <= now() - killed < 20

    virtual(work)


def test_an_orderly_end_is_followed_at_the_next_try(virtual: Virtual) -> None:
    async def work() -> None:
        leases = Leases()
        first, second = elector(leases, "a"), elector(leases, "b")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(10)
        begun = now()
        await first.release()
        await waiting
        assert now() - begun <= 1.2 * OPTIONS.retry + 0.1
        assert leases.lease is not None
        assert leases.lease["spec"]["leaseTransitions"] == 1

    virtual(work)


def test_a_leader_that_cannot_renew_ends_before_another_may_begin(virtual: Virtual) -> None:
    async def work() -> None:
        leases = Leases()
        first, second = elector(leases, "a"), elector(leases, "b")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.5)
        leases.cut.add("a")
        with pytest.raises(LeaseLost, match="could not be renewed for 10 s"):
            await first.hold()
        assert not first.leading
        assert not waiting.done()
        await waiting
        assert second.leading

    virtual(work)


def test_a_short_outage_costs_nothing(virtual: Virtual) -> None:
    async def work() -> None:
        leases = Leases()
        first = elector(leases, "a")
        await first.acquire()
        holding = asyncio.create_task(first.hold())
        await asyncio.sleep(10)
        leases.away = True
        await asyncio.sleep(6)
        leases.away = False
        await asyncio.sleep(60)
        assert not holding.done()
        holding.cancel()

    virtual(work)


def test_a_lost_answer_of_a_renewal_is_noticed_as_ones_own(virtual: Virtual) -> None:
    async def work() -> None:
        leases = Leases()
        first = elector(leases, "a")
        await first.acquire()
        holding = asyncio.create_task(first.hold())
        leases.lose_answer = True
        await asyncio.sleep(60)
        assert not leases.lose_answer
        assert not holding.done()
        holding.cancel()

    virtual(work)


def test_a_lease_that_another_took_ends_the_leader(virtual: Virtual) -> None:
    async def work() -> None:
        leases = Leases()
        first = elector(leases, "a")
        await first.acquire()
        assert leases.lease is not None
        leases.lease["spec"]["holderIdentity"] = "b"
        leases.version += 1
        leases.lease["metadata"]["resourceVersion"] = str(leases.version)
        with pytest.raises(LeaseLost, match="held by b"):
            await first.hold()
        await first.release()  # Not ours to give back.
        assert leases.lease["spec"]["holderIdentity"] == "b"

    virtual(work)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0.1, 40)), max_size=12),
    seed=st.integers(0, 10_000),
)
def test_there_are_never_two_leaders_and_always_one_in_the_end(
    virtual: Virtual, cuts: list[tuple[str, float]], seed: int
) -> None:
    async def work() -> None:
        leases = Leases()
        leading: set[str] = set()

        async def replica(name: str) -> None:
            while True:
                one = elector(leases, name, seed)
                await one.acquire()
                leading.add(name)
                assert len(leading) == 1, leading
                try:
                    await one.hold()
                except LeaseLost:
                    leading.discard(name)

        replicas = [asyncio.create_task(replica(name)) for name in "abc"]
        for name, seconds in cuts:
            leases.cut ^= {name}
            await asyncio.sleep(seconds)
        leases.cut.clear()
        await asyncio.sleep(60)
        assert len(leading) == 1
        for task in replicas:
            assert not task.done()
            task.cancel()

    virtual(work)

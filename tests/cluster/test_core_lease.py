"""Leader election on a real Lease, with short times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from clusterkit.cluster import Cluster
from feedmill_operator.config import LeaseOptions
from feedmill_operator.kube.client import KubeClient, load_configuration
from feedmill_operator.kube.lease import Elector, LeaseLost

OPTIONS = LeaseOptions(duration=3.0, renew_deadline=2.0, retry=0.2)
LONG = LeaseOptions(duration=60.0, renew_deadline=40.0, retry=0.2)
"""Where nothing is to run out, not even while a machine stands still."""
Make = Callable[..., Elector]


@pytest.fixture
async def make(api_cluster: Cluster, api_namespace: str) -> AsyncIterator[Make]:
    clients: list[KubeClient] = []

    def one(identity: str, options: LeaseOptions = OPTIONS) -> Elector:
        clients.append(KubeClient(load_configuration(api_cluster.kubeconfig), concurrency=2))
        return Elector(clients[-1], api_namespace, options, identity)

    yield one
    for client in clients:
        client.close()


async def test_a_killed_holder_is_followed_when_its_lease_runs_out(
    make: Make, api_cluster: Cluster, api_namespace: str
) -> None:
    first, second = make("a"), make("b")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    await _until(lambda: second.holder == "a")
    holding.cancel()
    async with asyncio.timeout(60):
        await waiting
    # Not before the Lease of the killed one ran out since its last renewal, which may have been a while before its end.
    assert asyncio.get_running_loop().time() - first._held_at >= OPTIONS.duration
    lease = api_cluster.api.need("leases", api_namespace, OPTIONS.name)["spec"]
    assert (lease["holderIdentity"], lease["leaseTransitions"]) == ("b", 1)


async def test_a_released_lease_is_taken_at_the_next_try(make: Make) -> None:
    first, second = make("a", LONG), make("b", LONG)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await _until(lambda: second.holder == "a")
    begun = time.monotonic()
    await first.release()
    async with asyncio.timeout(90):
        await waiting
    assert time.monotonic() - begun < LONG.duration / 2


async def test_of_many_at_once_one_leads(make: Make) -> None:
    electors = [make(f"e{number}", LONG) for number in range(6)]
    tasks = [asyncio.create_task(elector.acquire()) for elector in electors]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    holding = [asyncio.create_task(elector.hold()) for elector in electors if elector.leading]
    await _until(lambda: all(elector.holder for elector in electors))
    assert sum(elector.leading for elector in electors) == 1
    for task in (*tasks, *holding):
        task.cancel()


async def test_a_holder_whose_lease_is_taken_away_is_told(make: Make, api_cluster: Cluster, api_namespace: str) -> None:
    first = make("a", LONG)
    await first.acquire()
    api_cluster.api.merge("leases", api_namespace, OPTIONS.name, {"spec": {"holderIdentity": "somebody"}})
    with pytest.raises(LeaseLost, match="held by somebody"):
        async with asyncio.timeout(60):
            await first.hold()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)

"""Reading the processes' health over real HTTP; telling pods of a changed configuration."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from memory_api import MemoryApi
from status_facts import HASH, fresh_pod, good

from feedmill.shared.health import Health, HealthServer
from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError
from feedmill_operator.reconcile import hasten
from feedmill_operator.reconcile.answers import MOST_BYTES, SLOWEST, Answers
from feedmill_operator.reconcile.queue import Key

KEY = Key("ExchangeFeed", "ns", "spot")


class Queue:
    """What was queued, and a way to wait for it."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self._news = asyncio.Event()

    def add(self, key: Key) -> None:
        self.keys.append(key)
        self._news.set()

    async def next(self) -> None:
        async with asyncio.timeout(120):
            await self._news.wait()
        self._news.clear()


Start = Callable[..., Answers]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Answers that ask all the time. The clock of some stands: who was too late, because a busy machine paused, would
    never be asked again."""
    tasks: list[asyncio.Task[None]] = []

    def started(queue: Queue, port: int, **more: Any) -> Answers:
        answers = Answers(queue, port=port, **{"interval": 0.05, "timeout": 60.0, **more})  # type: ignore[arg-type]
        tasks.append(asyncio.create_task(answers.run()))
        return answers

    yield started
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not check():
            await asyncio.sleep(0.02)


async def test_a_real_health_page_is_read_and_news_is_queued(start: Start) -> None:
    health = Health("receiver")
    config = {"hash": "one"}
    health.detail("config", lambda: config)
    server = HealthServer(health, "127.0.0.1", 0)
    await server.start()
    try:
        queue = Queue()
        # A word counts for three intervals: longer than any pause of a busy machine.
        answers = start(queue, server.port, interval=30.0)
        assert answers.of(KEY) == {}
        answers.track(KEY, [fresh_pod("p", ip="127.0.0.1"), fresh_pod("q", ip="127.0.0.1", phase="Pending")])
        await queue.next()
        assert {pod: answer.config_hash for pod, answer in answers.of(KEY).items()} == {"p": "one"}
        config["hash"] = "two"
        await queue.next()
        assert answers.of(KEY)["p"].config_hash == "two"
        assert queue.keys == [KEY, KEY]
        # A pod that is no longer tracked is forgotten, at once.
        answers.track(KEY, [])
        assert answers.of(KEY) == {}
    finally:
        await server.stop()


def test_what_does_not_answer_is_asked_ever_more_rarely() -> None:
    clock = [0.0]
    queue = Queue()
    answers = Answers(queue, clock=lambda: clock[0], random_source=random.Random(1))  # type: ignore[arg-type]
    answers.track(KEY, [fresh_pod("p")])
    target = answers._targets[KEY]["p"]
    waits = []
    for _ in range(10):
        clock[0] = target.due
        answers._take(target, None)
        waits.append(target.due - clock[0])
    assert all(0.9 <= wait / SLOWEST <= 1.1 for wait in waits[5:])
    assert waits[0] < 5
    assert all(longer > shorter for shorter, longer in pairwise(waits[:5]))
    # One that answers again is asked as often as any, and news.
    answers._take(target, good())
    assert target.due - clock[0] < 20
    assert queue.keys == [KEY]


async def test_what_does_not_answer_is_unknown(start: Start) -> None:
    asked = [0]

    async def refuse(_: web.Request) -> web.Response:
        asked[0] += 1
        return web.Response(status=503)

    async with served(refuse) as port:
        queue = Queue()
        answers = start(queue, port)
        answers.track(KEY, [fresh_pod("p", ip="127.0.0.1")])
        await until(lambda: asked[0] >= 1 and not answers._tasks)
        assert answers.of(KEY) == {}
        assert queue.keys == []


async def test_an_old_answer_is_no_answer(start: Start) -> None:
    clock = [0.0]
    good_now = [True]
    asked = [0]

    async def answer(_: web.Request) -> web.Response:
        asked[0] += 1
        return web.json_response({"ready": True}) if good_now[0] else web.Response(status=500)

    async with served(answer) as port:
        queue = Queue()
        answers = start(queue, port, interval=10.0, clock=lambda: clock[0])
        answers.track(KEY, [fresh_pod("p", ip="127.0.0.1")])
        await queue.next()
        good_now[0] = False
        clock[0] += 12.0
        before = asked[0]
        await until(lambda: asked[0] > before)
        assert answers.of(KEY)["p"].ready  # Its word still counts.
        clock[0] += 30.0
        assert answers.of(KEY) == {}
        await queue.next()  # And the object is looked at again, because of that.
        assert queue.keys == [KEY, KEY]


@pytest.mark.parametrize(
    "body",
    [b"not json", b"[1]", b"x" * (MOST_BYTES + 2), b'{"ready": true, "x": "' + b"y" * MOST_BYTES + b'"}'],
    ids=["text", "list", "long", "long-json"],
)
async def test_nonsense_is_no_answer(start: Start, body: bytes) -> None:
    asked = [0]

    async def answer(_: web.Request) -> web.Response:
        asked[0] += 1
        return web.Response(body=body)

    async with served(answer) as port:
        queue = Queue()
        answers = start(queue, port)
        answers.track(KEY, [fresh_pod("p", ip="127.0.0.1")])
        await until(lambda: asked[0] >= 1 and not answers._tasks)
        assert answers.of(KEY) == {}
        assert queue.keys == []


async def test_slow_ones_are_not_waited_for(start: Start) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async with served(answer) as port:
        answers = start(Queue(), port, timeout=0.6)
        answers.track(KEY, [fresh_pod(f"p{number}", ip="127.0.0.1") for number in range(50)])
        await until(lambda: len(answers._tasks) == 50)
        await until(lambda: not answers._tasks)
        assert answers.of(KEY) == {}


async def test_a_pod_of_the_same_name_with_another_address_is_another(start: Start) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"ready": True})

    async with served(answer) as port:
        queue = Queue()
        answers = start(queue, port)
        answers.track(KEY, [fresh_pod("p", ip="127.0.0.1")])
        await queue.next()
        answers.track(KEY, [fresh_pod("p", ip="127.0.0.2")])
        assert answers.of(KEY) == {}


async def test_hurry_asks_at_once(start: Start) -> None:
    clock = [0.0]
    asked = [0]

    async def answer(_: web.Request) -> web.Response:
        asked[0] += 1
        return web.json_response({"ready": True})

    async with served(answer) as port:
        queue = Queue()
        answers = start(queue, port, interval=1000.0, clock=lambda: clock[0])
        answers.track(KEY, [fresh_pod("p", ip="127.0.0.1")])
        await queue.next()
        clock[0] += 3000.0  # Beyond the quick looks at a new pod.
        await until(lambda: asked[0] == 2 and not answers._tasks)  # What is still under way would not be hurried.
        clock[0] += 10.0
        answers.hurry(KEY)
        clock[0] += 2.0
        await until(lambda: asked[0] == 3 and not answers._tasks)
        clock[0] += 3.0
        await until(lambda: asked[0] == 4)


class served:
    """A page on a port of its own."""

    def __init__(self, handler: Callable[[web.Request], Awaitable[web.Response]]) -> None:
        app = web.Application()
        app.router.add_get("/health", handler)  # type: ignore[arg-type]
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def __aenter__(self) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


# --- hasten ----------------------------------------------------------------------------------------------------------

TOLD = fresh_pod("told", config_hash=HASH)
PODS = [
    fresh_pod("new"),
    TOLD,
    fresh_pod("old", config_hash="before"),
    fresh_pod("pending", phase="Pending"),
    fresh_pod("going", deleting=True),
]


@pytest.mark.parametrize(
    ("answers", "changed", "told"),
    [
        ({}, True, ["new", "old"]),
        ({}, False, []),
        # It says that it works with another one: it was missed.
        ({"old": good(config_hash="before"), "new": good()}, False, ["old"]),
        ({"told": good(config_hash="before")}, True, ["new", "old"]),
        ({"new": good(config_hash="")}, False, []),
    ],
)
def test_who_is_told_of_a_configuration(answers: dict[str, Any], changed: bool, told: list[str]) -> None:
    assert [pod.name for pod in hasten.behind(PODS, answers, HASH, changed=changed)] == told
    assert hasten.behind(PODS, answers, "", changed=changed) == []


async def test_pods_are_annotated_and_failures_do_not_matter() -> None:
    api = MemoryApi()
    for pod in PODS[:2]:
        api.objects["Pod", "ns", pod.name] = {"metadata": {"name": pod.name, "namespace": "ns"}}
    api.fail["patch", "told"] = [ApiError(500, "x", "y")]
    await hasten.hasten(api, PODS[:3], HASH)  # type: ignore[arg-type]
    assert api.calls("patch") == [f"patch Pod {pod.name}" for pod in PODS[:3]]
    found = await api.get(kinds.POD, "ns", "new")
    assert found is not None
    assert found["metadata"]["annotations"] == {names.CONFIG_HASH: HASH}

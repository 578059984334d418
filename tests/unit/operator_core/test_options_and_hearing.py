"""Wrong options say what to do; a watch that hears nothing makes /healthz fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from feedmill.shared.health import Health
from feedmill_operator import metrics, serve
from feedmill_operator.config import BadOption, LeaseOptions, Options, seconds
from feedmill_operator.health import Hearing, OperatorHealth
from feedmill_operator.kube.client import BadKubeconfig, load_configuration
from feedmill_operator.kube.events import Events
from feedmill_operator.reconcile.ports import Wiring


@pytest.mark.parametrize(
    ("text", "value"), [("120s", 120.0), ("2m", 120.0), ("500ms", 0.5), ("90", 90.0), ("1.5h", 5400.0)]
)
def test_durations(text: str, value: float) -> None:
    assert seconds("--resync", text) == value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operand_image": " "}, "--operand-image is empty"),
        ({"namespaces": ("Upper",)}, "--namespace 'Upper'"),
        ({"workers": 0}, "--workers 0: give a number from 1 to 256"),
        ({"health_port": 70000}, "--health-port 70000"),
        ({"resync": 0.0}, "--resync 0s"),
        ({"lease": LeaseOptions(duration=5)}, "retry < renew deadline < duration"),
    ],
)
def test_wrong_options_name_themselves_and_the_remedy(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        Options(**{"operand_image": "services:1", **options})


def test_a_kubeconfig_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadKubeconfig, match="give --kubeconfig FILE"):
        load_configuration(tmp_path / "none")


def test_silence_counts_only_while_watching() -> None:
    now = 0.0
    hearing = Hearing(300, clock=lambda: now)
    now = 10_000.0
    assert hearing.alive() == (True, "")
    hearing.begin()
    now += 299
    assert hearing.alive() == (True, "")
    hearing.event()  # Some watch hears; the one of the Lease does not.
    now += 1
    alive, why = hearing.alive()
    assert not alive
    assert "no renewal of the own Lease was seen for 300 s" in why
    hearing.probe()
    assert hearing.alive() == (True, "")
    now += 1000
    hearing.end()
    assert hearing.alive() == (True, "")


async def test_a_deaf_operator_fails_its_liveness_probe_and_stays_ready() -> None:
    now = 0.0
    hearing = Hearing(300, clock=lambda: now)
    server = OperatorHealth(Health("feedmill-operator"), hearing, "127.0.0.1", 0)
    await server.start()
    try:
        hearing.begin()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            assert (await session.get("/healthz")).status == 200
            now = 301.0
            answer = await session.get("/healthz")
            assert answer.status == 503
            assert "deaf" in await answer.text()
            assert (await session.get("/readyz")).status == 200
            assert "feedmill_operator_watch_probe_age_seconds 301.0" in await (await session.get("/metrics")).text()
    finally:
        await server.stop()


class _Recording:
    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.errors: list[Exception] = []

    async def create(self, kind: Any, manifest: dict[str, Any]) -> dict[str, Any]:
        if self.errors:
            raise self.errors.pop()
        self.created.append(manifest)
        return manifest


def test_an_event_is_told_once_a_generation_and_reason_and_without_secrets(
    virtual: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any],
) -> None:
    import asyncio

    from feedmill_operator.kube.api import ApiError

    async def work() -> None:
        api = _Recording()
        events = Events(api, "op-1")  # type: ignore[arg-type]
        running = asyncio.create_task(events.run())
        about = {
            "apiVersion": "feedmill.dev/v1alpha1",
            "kind": "ExchangeFeed",
            "metadata": {"name": "spot", "namespace": "ns", "uid": "u", "generation": 1, "resourceVersion": "5"},
        }
        for _ in range(3):
            events.warning(about, "SecretMissing", "redis://user:hunter22@host is missing")
        events.normal(about, "Accepted", "x" * 5000)
        about["metadata"]["generation"] = 2  # type: ignore[index]
        events.warning(about, "SecretMissing", "again")
        await events.flushed()
        assert [event["reason"] for event in api.created] == ["SecretMissing", "Accepted", "SecretMissing"]
        assert [event["type"] for event in api.created] == ["Warning", "Normal", "Warning"]
        assert "hunter22" not in api.created[0]["message"]
        assert len(api.created[1]["message"]) == 1024
        assert api.created[0]["involvedObject"]["uid"] == "u"
        # One that cannot be written is dropped, and the next one comes.
        api.errors.append(ApiError(500, "", "no"))
        events.normal(about, "Lost", "")
        events.normal(about, "Next", "")
        await events.flushed()
        assert [event["reason"] for event in api.created][3:] == ["Next"]
        # A crowd is bounded: what finds no room is dropped, and may be told another time.
        running.cancel()
        for number in range(2000):
            events.normal(about, f"Crowd{number}", "")
        running = asyncio.create_task(events.run())
        await events.flushed()
        assert len(api.created) == 4 + 1000
        events.normal(about, "Crowd1999", "")
        await events.flushed()
        assert api.created[-1]["reason"] == "Crowd1999"
        running.cancel()

    virtual(work)


def test_who_needs_no_lease_counts_as_the_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The alert on an absent operator asks for it."""
    metrics.leader.set(0)
    seen: list[float] = []

    async def work(self: Any, api: Any, span: Any, elector: Any) -> int:
        seen.append(metrics.leader._value.get())
        return 0

    monkeypatch.setattr(serve._Operator, "_work", work)
    options = Options(operand_image="services:1", lease=LeaseOptions(enabled=False))
    client: Any = None
    try:
        operator = serve._Operator(options, lambda *parts: Wiring({}))
        assert asyncio.run(operator._lead(client, lambda key: nullcontext())) == 0
    finally:
        metrics.leader.set(0)
    assert seen == [1.0]

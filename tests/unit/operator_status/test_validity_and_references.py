"""Who is not accepted, and why: exact key, value and remedy; never a secret."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator.reconcile import references
from feedmill_operator.reconcile.reasons import Reason
from feedmill_operator.reconcile.validity import Refusal, read_feed, read_pipeline

URL = {"urlSecretRef": {"name": "redis", "key": "url"}}
PG = {"urlSecretRef": {"name": "pg", "key": "url"}}


def body(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """As the API server gives it, with what it adds."""
    return {
        "apiVersion": "feedmill.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": "spot", "namespace": "ns", "uid": "u", "generation": 3, "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{"manager": "x"}], "somethingNew": 1,
        },
        "spec": spec,
        "status": {"whatever": True},
    }  # fmt: skip


def feed(**spec: Any) -> dict[str, Any]:
    return body(
        "ExchangeFeed",
        {
            "pipelineRef": {"name": "main"},
            "exchange": {"name": "binance", "market": "Spot"},
            "instruments": {"symbols": ["BTC-USDT"]},
            "channels": [{"name": "Trades"}],
            **spec,
        },
    )


def pipeline(**spec: Any) -> FeedPipeline:
    found = read_pipeline(body("FeedPipeline", {"redis": URL, "postgres": PG, **spec}))
    assert isinstance(found, FeedPipeline)
    return found


def test_a_good_feed() -> None:
    found = read_feed(feed())
    assert isinstance(found, ExchangeFeed)
    assert found.key == ("ns", "spot")


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        (
            {"exchange": {"name": "binanse", "market": "Spot"}},
            Reason.EXCHANGE_UNKNOWN,
            ["spec.exchange.name", "binanse", "did you mean binance"],
        ),
        (
            {"exchange": {"name": "binance", "market": "CoinM"}},
            Reason.EXCHANGE_UNKNOWN,
            ["spec.exchange.market", "CoinM"],
        ),
        ({"instruments": {"symbols": ["BTCUSDT"]}}, Reason.INSTRUMENT_INVALID, ["symbols[0]", "BTCUSDT", "BTC-USDT"]),
        (
            {"instruments": {"select": {"base": ["BTC"], "maxInstruments": 0}}},
            Reason.SPEC_INVALID,
            ["spec.instruments.select.maxInstruments", "0"],
        ),
        (
            {"channels": [{"name": "Candles", "interval": "7m"}]},
            Reason.CHANNEL_UNSUPPORTED,
            ["spec.channels[0].interval", "7m"],
        ),
        ({"receiver": {"shards": 5}}, Reason.SPEC_INVALID, ["spec.receiver.shards", "5 shards for 1 symbol"]),
        # What a stricter version finds in an older object.
        (
            {"channels": [{"name": "Trades", "depth": 5}]},
            Reason.SPEC_INVALID,
            ["spec.channels[0].depth", "only for the channel Book"],
        ),
        ({"receiver": {"replicas": 99}}, Reason.SPEC_INVALID, ["spec.receiver.replicas", "99"]),
        ({"strange": 1}, Reason.SPEC_INVALID, ["strange"]),
    ],
)
def test_a_feed_that_cannot_be_carried_out(spec: dict[str, Any], reason: Reason, words: list[str]) -> None:
    found = read_feed(feed(**spec))
    assert isinstance(found, Refusal)
    assert found.reason is reason
    for word in words:
        assert word in found.message


def test_a_selection_is_accepted() -> None:
    found = read_feed(feed(instruments={"select": {"base": ["BTC"], "refreshInterval": "30s"}}))
    assert isinstance(found, ExchangeFeed)


def test_many_problems_are_cut_short() -> None:
    found = read_feed(feed(instruments={"symbols": [f"X{number}" for number in range(50)]}))
    assert isinstance(found, Refusal)
    assert "and 42 more" in found.message
    assert len(found.message) < 2048


def test_a_pipeline_that_breaks_a_rule() -> None:
    found = read_pipeline(body("FeedPipeline", {"redis": {}, "postgres": PG}))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.SPEC_INVALID
    assert "exactly one of urlSecretRef" in found.message


def secret(**values: str | bytes) -> dict[str, Any]:
    def encoded(value: str | bytes) -> str:
        return base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()

    return {"data": {key: encoded(value) for key, value in values.items()}}


CA = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
TLS = {"tls": {"caSecretRef": {"name": "ca", "key": "ca.crt"}}}


class Secrets:
    """Of one namespace; counts what is asked."""

    def __init__(self, **found: dict[str, Any]) -> None:
        self.found = found
        self.asked: list[str] = []

    async def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        assert (kind.kind, namespace) == ("Secret", "ns")
        self.asked.append(name)
        return self.found.get(name)


async def check(spec: dict[str, Any], **found: dict[str, Any]) -> Refusal | None:
    made = pipeline(**spec)
    return await references.check(Secrets(**found), made, references.of_pipeline(made), "ns")  # type: ignore[arg-type]


GOOD_REDIS, GOOD_PG = secret(url="redis://:pw@h:6379/0\n"), secret(url="postgresql://u:pw@h/d")


async def test_good_secrets() -> None:
    assert await check({}, redis=GOOD_REDIS, pg=GOOD_PG) is None
    assert await check({"redis": {"managed": {}}, "postgres": {"managed": {}}}) is None
    tls = {"redis": {**URL, **TLS}, "postgres": {**PG, **TLS}}
    found = {"redis": secret(url="rediss://h"), "pg": GOOD_PG, "ca": {"data": {"ca.crt": secret(x=CA)["data"]["x"]}}}
    assert await check(tls, **found) is None


@pytest.mark.parametrize(
    ("spec", "found", "reason", "words"),
    [
        ({}, {}, Reason.SECRET_NOT_FOUND, ["spec.redis.urlSecretRef", "Secret redis", "namespace ns",
                                           "kubectl -n ns create secret generic redis --from-literal=url="]),
        ({}, {"redis": GOOD_REDIS}, Reason.SECRET_NOT_FOUND, ["spec.postgres.urlSecretRef", "Secret pg"]),
        ({}, {"redis": secret(uri="redis://h", other="x")}, Reason.SECRET_KEY_MISSING,
         ["Secret redis", "key url", "other, uri", "spec.redis.urlSecretRef.key"]),
        ({}, {"redis": {}}, Reason.SECRET_KEY_MISSING, ["it has: none"]),
        ({}, {"redis": secret(url="")}, Reason.SECRET_INVALID, ["key url of Secret redis", "empty"]),
        ({}, {"redis": secret(url=b"\xff\xfe")}, Reason.SECRET_INVALID, ["not UTF-8"]),
        ({}, {"redis": {"data": {"url": "%%%"}}}, Reason.SECRET_INVALID, ["not UTF-8"]),
        ({}, {"redis": secret(url="x" * 70_000)}, Reason.SECRET_INVALID, ["larger than"]),
        ({}, {"redis": secret(url="http://:hunter2hunter2@h")}, Reason.SECRET_INVALID, ["redis://, rediss://"]),
        ({}, {"redis": secret(url="redis://:hunter2/hunter2@h")}, Reason.SECRET_INVALID, ["percent-encoded"]),
        ({}, {"redis": GOOD_REDIS, "pg": secret(url="postgresql://u:hunter2hunter2@h")}, Reason.SECRET_INVALID,
         ["key url of Secret pg", "names no database"]),
        ({}, {"redis": GOOD_REDIS, "pg": secret(url="mysql://u:hunter2hunter2@h/d")}, Reason.SECRET_INVALID,
         ["postgresql://"]),
        ({"redis": {**URL, **TLS}}, {"redis": GOOD_REDIS}, Reason.SECRET_INVALID, ["rediss://"]),
        ({"redis": {**URL, **TLS}}, {"redis": secret(url="rediss://h")}, Reason.SECRET_NOT_FOUND,
         ["spec.redis.tls.caSecretRef", "--from-file=ca.crt"]),
        ({"redis": {**URL, **TLS}}, {"redis": secret(url="rediss://h"), "ca": {"data": {"ca.crt": "eA=="}}},
         Reason.SECRET_INVALID, ["BEGIN CERTIFICATE"]),
        ({"postgres": {**PG, **TLS}}, {"redis": GOOD_REDIS, "pg": secret(url="postgresql://u@h/d?sslmode=prefer")},
         Reason.SECRET_INVALID, ["sslmode"]),
    ],
)  # fmt: skip
async def test_secrets_that_cannot_be_used(
    spec: dict[str, Any], found: dict[str, Any], reason: Reason, words: list[str]
) -> None:
    refusal = await check(spec, **found)
    assert refusal is not None
    assert refusal.reason is reason
    for word in words:
        assert word in refusal.message
    assert "hunter2" not in refusal.message


async def test_a_secret_with_several_keys_is_asked_once() -> None:
    made = read_feed(feed(exchange={"name": "binance", "market": "Spot", "credentialsSecretRef": {"name": "keys"}}))
    assert isinstance(made, ExchangeFeed)
    wanted = references.of_feed(made)
    api = Secrets(keys=secret(apiKey="k"))
    refusal = await references.check(api, pipeline(), wanted, "ns")  # type: ignore[arg-type]
    assert refusal is not None
    assert refusal.reason is Reason.SECRET_KEY_MISSING
    assert "apiSecret" in refusal.message
    assert api.asked == ["keys"]
    assert references.of_feed(read_feed(feed())) == []  # type: ignore[arg-type]

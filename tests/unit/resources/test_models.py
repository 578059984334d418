"""The models: every default, their YAML names, scalars and rules."""

from __future__ import annotations

import copy
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feedmill.resources.account import ExchangeAccount
from feedmill.resources.base import Model
from feedmill.resources.feed import Channel, ExchangeFeed, FeedSpec
from feedmill.resources.load import ResourceError, load_texts
from feedmill.resources.parse import MODELS
from feedmill.resources.pipeline import FeedPipeline, default_pipeline
from feedmill.resources.problems import Problem
from feedmill.resources.reference import reference
from feedmill.resources.rules import violations
from feedmill.resources.shape import known_paths, objects_of, properties, show_path
from feedmill.resources.types import CheckInterval, Duration, KeepFor, Quantity, SampleInterval

ROOT = Path(__file__).parents[3]
FULL = list(yaml.safe_load_all((ROOT / "examples" / "full-pipeline.yaml").read_text(encoding="utf-8")))

FEED_DEFAULTS = {
    "metadata.namespace": "default",
    "spec.instruments.select.maxInstruments": 500,
    "spec.exchange.environment": "Production",
    "spec.channels[].depth": 20,
    "spec.channels[].sampleInterval": "1s",
    "spec.channels[].interval": "",
    "spec.receiver.shards": 1,
    "spec.receiver.replicas": 1,
    "spec.receiver.spill.size": "1Gi",
    "spec.receiver.reconnect.maxBackoff": "60s",
    "spec.receiver.reconnect.stableAfter": "10s",
    "spec.receiver.batching.mode": "Adaptive",
    "spec.receiver.batching.maxAge": "20ms",
    "spec.receiver.memory": "64Mi",
    "spec.distributor.replicas": 1,
    "spec.distributor.gapGrace": "2s",
    "spec.distributor.imageInterval": "5s",
    "spec.logLevel": "Info",
    "spec.suspend": False,
}
ACCOUNT_DEFAULTS = {
    "metadata.namespace": "default",
    "spec.exchange.environment": "Production",
    "spec.suspend": False,
}
PIPELINE_DEFAULTS = {
    "metadata.namespace": "default",
    "spec.redis.managed.storage": "2Gi",
    "spec.redis.managed.memory": "1Gi",
    "spec.redis.circuitBreaker.failureThreshold": 5,
    "spec.redis.circuitBreaker.resetTimeout": "30s",
    "spec.redis.confirm.replicas": 0,
    "spec.postgres.managed.storage": "20Gi",
    "spec.postgres.circuitBreaker.failureThreshold": 5,
    "spec.postgres.circuitBreaker.resetTimeout": "30s",
    "spec.processor.replicas": 1,
    "spec.accounts.replicas": 1,
    "spec.accounts.permissions.withdraw": "Refuse",
    "spec.accounts.permissions.checkEvery": "24h",
    "spec.api.replicas": 1,
    "spec.egress": "default",
    "spec.candles.intervals": ["1m", "5m", "15m", "1h", "4h", "1d"],
    "spec.retention.trades": "30d",
    "spec.retention.tickers": "3d",
    "spec.retention.bookSnapshots": "7d",
    "spec.retention.deadLetters": "90d",
    "spec.retention.audit": "365d",
    "spec.backup.timeZone": "UTC",
    "spec.backup.suspend": False,
    "spec.backup.destination.b2.prefix": "",
    "spec.backup.destination.b2.realm": "production",
    "spec.backup.destination.s3.prefix": "",
    "spec.backup.destination.s3.region": "us-east-1",
    "spec.backup.destination.s3.pathStyle": False,
    "spec.backup.retention.maxAge": "30d",
    "spec.backup.retention.maxCount": 60,
    "spec.backup.continuous.enabled": False,
    "spec.backup.continuous.baseSchedule": "0 2 * * 0",
    "spec.backup.continuous.spool.size": "4Gi",
    "spec.backup.verify.schedule": "0 5 * * 0",
    "spec.backup.verify.suspend": False,
    "spec.backup.scratch.size": "20Gi",
    "spec.notifications.telegram.minimumSeverity": "Warning",
    "spec.notifications.telegram.maskAccounts": False,
    "spec.notifications.telegram.quietHours.timeZone": "UTC",
    "spec.notifications.telegram.perMinute": 20,
    "spec.notifications.telegram.baseUrl": "https://api.telegram.org",
    "spec.monitoring.podMonitor": "Auto",
    "spec.monitoring.prometheusRule": "Auto",
    "spec.monitoring.tracing.samplingPercent": 1,
    "spec.logLevel": "Info",
    "spec.suspend": False,
}
MINIMAL_FEED: dict[str, Any] = {
    "metadata": {"name": "spot"},
    "spec": {
        "pipelineRef": {"name": "main"},
        "exchange": {"name": "binance", "market": "Spot"},
        "instruments": {"symbols": ["BTC-USDT"]},
        "channels": [{"name": "Book"}],
    },
}


def _scalars(model: type[Model]) -> dict[str, Any]:
    """Path -> default of every field that is no object of our own and has a default."""
    return {
        show_path(path): prop.default
        for path, prop in known_paths(model)
        if prop.default is not None and prop.default != {} and path[0] not in ("apiVersion", "kind", "status")
    }


@pytest.mark.parametrize(
    ("model", "defaults"),
    [(ExchangeFeed, FEED_DEFAULTS), (FeedPipeline, PIPELINE_DEFAULTS), (ExchangeAccount, ACCOUNT_DEFAULTS)],
)
def test_every_default(model: type[Model], defaults: dict[str, Any]) -> None:
    assert _scalars(model) == defaults


def test_defaults_as_attributes() -> None:
    feed = ExchangeFeed.model_validate(MINIMAL_FEED)
    receiver, distributor, channel = feed.spec.receiver, feed.spec.distributor, feed.spec.channels[0]
    assert feed.key == ("default", "spot")
    assert (receiver.shards, receiver.replicas, receiver.memory.bytes) == (1, 1, 64 << 20)
    assert (receiver.reconnect.max_backoff.seconds, receiver.reconnect.stable_after.seconds) == (60.0, 10.0)
    assert receiver.reconnect.silence_timeout is None
    assert (receiver.batching.mode, receiver.batching.max_age.seconds) == ("Adaptive", 0.02)
    assert receiver.spill.size.bytes == 1 << 30
    assert (distributor.gap_grace.seconds, distributor.image_interval.seconds) == (2.0, 5.0)
    assert (channel.depth, channel.sample_interval.seconds, channel.interval) == (20, 1.0, "")
    assert feed.spec.exchange.endpoints is None
    assert not feed.spec.suspend

    made = default_pipeline("team", "main")
    assert made.key == ("team", "main")
    assert made.spec.redis.managed is not None
    assert made.spec.redis.managed.memory.bytes == 1 << 30
    assert made.spec.retention.book_snapshots.seconds == 7 * 86400
    assert made.spec.accounts is None
    assert (made.account_pool.replicas, made.account_pool.permissions.withdraw) == (1, "Refuse")
    assert made.account_pool.permissions.check_every.seconds == 86400


def test_yaml_names_are_camel_case_and_the_only_ones() -> None:
    for model in MODELS.values():
        for _, kind in objects_of(model):
            for attribute, info in kind.model_fields.items():
                camel = re.sub(r"_(\w)", lambda found: found[1].upper(), attribute.rstrip("_"))
                assert info.alias == camel, f"{kind.__name__}.{attribute}"
                assert info.description, f"{kind.__name__}.{attribute} has no docstring"
    snake = copy.deepcopy(MINIMAL_FEED)
    snake["spec"]["pipeline_ref"] = snake["spec"].pop("pipelineRef")
    with pytest.raises(ValidationError):
        ExchangeFeed.model_validate(snake, by_name=False)


def test_models_do_not_change() -> None:
    feed = ExchangeFeed.model_validate(MINIMAL_FEED)
    with pytest.raises(ValidationError):
        feed.spec.receiver.shards = 2  # type: ignore[misc]


def test_the_full_example_shows_every_field() -> None:
    shown = set()

    def walk(value: Any, path: str) -> None:
        shown.add(path)
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else key)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, f"{path}[]")

    for document in FULL:
        walk(document, "")
    # Written as comments there, because they exclude what is shown.
    instead = ("managed", "urlSecretRef", "select", "caSecretRef", "tls", "podTemplate", "s3", "folder")
    for model in MODELS.values():
        for path, prop in known_paths(model):
            text = show_path(path)
            if path[0] in ("status", "metadata") or any(part in instead for part in path):
                continue
            alike = text.replace("distributor", "receiver")
            assert text in shown or alike in shown, (
                f"{text} ({prop.description}) is missing in examples/full-pipeline.yaml"
            )


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_load(path: Path) -> None:
    resources = load_texts({path.name: path.read_text(encoding="utf-8")}, local=True)
    assert resources.feeds or resources.accounts
    assert resources.pipelines


@pytest.mark.parametrize(
    ("text", "seconds"), [("1ms", 0.001), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("24h", 86400), ("30d", 2_592_000)]
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration(text).seconds == seconds
    assert Duration(text).milliseconds == round(1000 * seconds)


@pytest.mark.parametrize(
    "text", ["", "0s", "-1s", "1", "s", "1.5h", "1 s", "1S", "1s\n", "１s", "1w", "1e3s", "99999999999s"]
)
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write a whole number and one unit of ms, s, m, h, d"):
        Duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1), ("1048576", 1 << 20), ("64Mi", 64 << 20), ("1Gi", 1 << 30), ("1.5G", 1_500_000_000), ("2Ti", 2 << 40),
        ("10k", 10_000), ("1.001Ki", 1025), ("3M", 3_000_000), ("1T", 10**12),
    ],
)  # fmt: skip
def test_quantities(text: str, size: int) -> None:
    assert Quantity(text).bytes == size


@pytest.mark.parametrize(
    "text", ["", "0", "0Mi", "-1Mi", "64MB", "64mi", "64 Mi", "Mi", "1e6", "1.Mi", "64Mi\n", "0.5Gi"]
)
def test_wrong_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of bytes"):
        Quantity(text)


def test_narrower_durations() -> None:
    assert SampleInterval("100ms").seconds == 0.1
    assert KeepFor("36h").seconds == 129_600
    assert CheckInterval("7d").seconds == 7 * 86_400
    wrong = (
        (SampleInterval, "99ms"),
        (SampleInterval, "1d"),
        (KeepFor, "90m"),
        (KeepFor, "30s"),
        (CheckInterval, "9s"),
    )
    for kind, text in wrong:
        with pytest.raises(ValueError, match=f"'{text}' is not a"):
            kind(text)


@given(number=st.integers(1, 999_999_999), unit=st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_any_duration_is_exact(number: int, unit: str) -> None:
    factor = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[unit]
    duration = Duration(f"{number}{unit}")
    assert duration.milliseconds == number * factor
    assert math.isclose(duration.seconds, number * factor / 1000)


def test_rules_are_evaluated_with_the_defaults_filled_in() -> None:
    spec = copy.deepcopy(MINIMAL_FEED)
    assert not list(violations(ExchangeFeed, spec))
    # depth has a default in code only (Implied): it must not be filled in, or every Trades channel would break a rule.
    spec["spec"]["channels"] = [{"name": "Trades"}, {"name": "Candles", "interval": "1m"}]
    assert not list(violations(ExchangeFeed, spec))
    pipeline = {"metadata": {"name": "p"}, "spec": {"redis": {"managed": {}}, "postgres": {"managed": {}}}}
    # "'1m' in self.intervals" holds because of a default.
    assert not list(violations(FeedPipeline, pipeline))


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ({"name": "Trades", "depth": 5}, "depth is only for the channel Book: remove it"),
        ({"name": "Ticker", "sampleInterval": "1s"}, "sampleInterval is only for the channel Book: remove it"),
        ({"name": "Book", "interval": "1m"}, "interval is only for the channel Candles: remove it"),
        ({"name": "Candles"}, "the channel Candles needs an interval: add interval: 1m"),
        ({"name": "Book", "depth": 5, "sampleInterval": "1s"}, None),
        ({"name": "Candles", "interval": "1m"}, None),
    ],
)
def test_rules_of_a_channel(channel: dict[str, Any], message: str | None) -> None:
    assert [violation.message for violation in violations(Channel, channel)] == ([message] if message else [])


def test_a_channel_once_candles_once_per_interval() -> None:
    spec = copy.deepcopy(MINIMAL_FEED["spec"])
    once = "each channel may be listed once (Candles: once per interval)"
    spec["channels"] = [{"name": "Candles", "interval": "1m"}, {"name": "Candles", "interval": "5m"}, {"name": "Book"}]
    assert not list(violations(FeedSpec, spec))
    spec["channels"].append({"name": "Candles", "interval": "5m"})
    assert [violation.message for violation in violations(FeedSpec, spec)] == [once]


def test_rules_that_speak_of_what_is_broken_are_not_asked() -> None:
    document = copy.deepcopy(MINIMAL_FEED)
    document["metadata"]["name"] = "Bad_Name"
    document["spec"]["channels"] = [{"name": "Candles", "intervall": "1m"}]
    name = [("metadata", "name")]
    asked = list(violations(ExchangeFeed, document, [("spec", "channels", 0, "intervall")]))
    assert [violation.path for violation in asked] == name, "the misspelt interval must not be told missing as well"
    asked = list(violations(ExchangeFeed, document, [("metadata", "name"), ("spec", "channels")]))
    assert not asked


def test_rules_for_the_api_server_compile() -> None:
    import cel

    for model in MODELS.values():
        for path, kind in objects_of(model):
            for rule in kind.rules:
                cel.compile(rule.rule)
                assert ("oldSelf" in rule.rule) is rule.transition, (path, rule)
                field = rule.field_path.lstrip(".").split(".")[0]
                assert not field or field in properties(kind), (path, rule)


JUNK = [
    None,
    "",
    "x",
    "../..",
    0,
    -1,
    1.5,
    True,
    [],
    {},
    [[]],
    [{}],
    {"a": None},
    "1m",
    "🦀",
    "9" * 400,
    [1, "a", {}],
    10**30,
]


@pytest.mark.parametrize("seed", range(40))
def test_any_junk_anywhere_is_told_and_never_a_traceback(seed: int) -> None:
    source = random.Random(seed)
    documents = copy.deepcopy(FULL)
    for _ in range(source.randint(1, 4)):
        target: Any = source.choice(documents)
        while True:
            key = source.choice(list(target) if isinstance(target, dict) else list(range(len(target))))
            inner = target[key]
            if not isinstance(inner, (dict, list)) or not inner or source.random() < 0.25:
                target[key] = source.choice(JUNK)
                break
            target = inner
    text = yaml.safe_dump_all(documents, allow_unicode=True)
    found: tuple[Problem, ...] = ()
    try:
        load_texts({"junk.yaml": text}, local=True)
    except ResourceError as error:
        found = error.problems
    assert all(problem.message and problem.file == "junk.yaml" for problem in found)


def test_committed_reference_is_what_the_models_say() -> None:
    page = ROOT / "docs" / "reference" / "resources.md"
    assert page.read_text(encoding="utf-8") == reference(), "run: make docs"


def test_links_of_the_reference_lead_somewhere() -> None:
    text = reference()
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links
    assert links <= headings
    for model in MODELS.values():
        for path, prop in known_paths(model):
            assert f"| `{path[-1]}` |" in text or prop.description == "Set by the API server." or path == ("status",)

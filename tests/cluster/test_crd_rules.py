"""Each rule of the models is a rule of the API server: what breaks it is refused by ``kubectl apply``, in its words."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from clusterkit import samples
from clusterkit.api import Object
from clusterkit.cluster import Cluster
from feedmill.resources.base import NAME_RULE, Rule
from feedmill.resources.crd import KINDS
from feedmill.resources.load import ResourceError, load_texts
from feedmill.resources.shape import objects_of

Changes = dict[str, Any]
"""Dotted path -> value; ``...`` takes the field away."""


@dataclass(frozen=True)
class Case:
    """What breaks one rule."""

    kind: str
    says: str
    """Part of the rule's message, enough to know which rule it is."""
    bad: Changes
    good: Changes = field(default_factory=dict)
    """The same place in a form the rule allows. Of a transition rule: an update that is allowed."""


DEPTH, SAMPLE = "depth is only for the channel Book", "sampleInterval is only for the channel Book"
IMMUTABLE_PIPELINE = "the pipeline of a feed is immutable"
CASES = [
    *(
        Case(kind, "1 to 40 lower-case letters", {"metadata.name": "with.dot"}, {"metadata.name": "a" * 40})
        for kind in ("ExchangeFeed", "FeedPipeline", "ExchangeAccount")
    ),
    *(
        Case(kind, "1 to 56 lower-case letters", {"metadata.name": "with.dot"}, {"metadata.name": "a" * 56})
        for kind in ("FeedBackup", "FeedRestore")
    ),
    # ExchangeFeed
    Case("ExchangeFeed", "give exactly one of symbols and select", {"spec.instruments": {}}),
    Case(
        "ExchangeFeed", "give exactly one of symbols and select",
        {"spec.instruments": {"symbols": ["BTC-USDT"], "select": {"types": ["Spot"]}}},
        {"spec.instruments": {"symbols": ["BTC-USDT"]}, "spec.receiver.shards": 1},
    ),
    Case(
        "ExchangeFeed", "give at least one criterion", {"spec.instruments": {"select": {}}},
    ),
    Case("ExchangeFeed", "give stream, rest or both", {"spec.exchange.endpoints": {}},
         {"spec.exchange.endpoints": {"stream": "ws://127.0.0.1:1"}}),
    Case("ExchangeFeed", DEPTH, {"spec.channels": [{"name": "Trades", "depth": 5}]},
         {"spec.channels": [{"name": "Book", "depth": 5}]}),
    Case("ExchangeFeed", SAMPLE, {"spec.channels": [{"name": "Trades", "sampleInterval": "1s"}]},
         {"spec.channels": [{"name": "Book", "sampleInterval": "1s"}]}),
    Case("ExchangeFeed", "interval is only for the channel Candles",
         {"spec.channels": [{"name": "Trades", "interval": "1m"}]},
         {"spec.channels": [{"name": "Candles", "interval": "1m"}]}),
    Case("ExchangeFeed", "the channel Candles needs an interval", {"spec.channels": [{"name": "Candles"}]}),
    Case("ExchangeFeed", "each channel may be listed once",
         {"spec.channels": [{"name": "Candles", "interval": "1m"}, {"name": "Trades"},
                            {"name": "Candles", "interval": "1m"}]},
         {"spec.channels": [{"name": "Candles", "interval": "1m"}, {"name": "Candles", "interval": "5m"}]}),
    Case("ExchangeFeed", "the exchange of a feed is immutable", {"spec.exchange.name": "deribit"},
         {"spec.exchange.endpoints": {"rest": "http://127.0.0.1:1"}}),
    Case("ExchangeFeed", "the market of a feed is immutable", {"spec.exchange.market": "UsdM"},
         {"spec.exchange.credentialsSecretRef": {"name": "other"}}),
    Case("ExchangeFeed", "the environment of a feed is immutable", {"spec.exchange.environment": "Testnet"},
         {"spec.exchange.environment": ...}),
    Case("ExchangeFeed", "the shards of a feed cannot be changed", {"spec.receiver.shards": 7},
         {"spec.receiver.replicas": 3}),
    Case("ExchangeFeed", IMMUTABLE_PIPELINE, {"spec.pipelineRef.name": "other"}, {"spec.suspend": True}),
    # FeedPipeline
    *(
        case
        for server in ("redis", "postgres")
        for case in (
            Case("FeedPipeline", "give exactly one of urlSecretRef", {f"spec.{server}": {}},
                 {f"spec.{server}": {"managed": {}}}),
            Case("FeedPipeline", "give exactly one of urlSecretRef",
                 {f"spec.{server}": {"managed": {}, "urlSecretRef": {"name": "x", "key": "url"}}}),
            Case("FeedPipeline", "tls is only for a server of your own",
                 {f"spec.{server}": {"managed": {}, "tls": {"caSecretRef": {"name": "x", "key": "ca"}}}},
                 {f"spec.{server}": {"urlSecretRef": {"name": "x", "key": "url"},
                                     "tls": {"caSecretRef": {"name": "x", "key": "ca"}}}}),
        )
    ),
    Case("FeedPipeline", "a managed Redis has no replicas that could confirm",
         {"spec.redis": {"managed": {}, "confirm": {"replicas": 1}}},
         {"spec.redis": {"urlSecretRef": {"name": "x", "key": "url"}, "confirm": {"replicas": 1}}}),
    Case("FeedPipeline", "1m must be among the intervals", {"spec.candles.intervals": ["5m", "1h"]},
         {"spec.candles.intervals": ["5m", "1m"]}),
    Case("FeedPipeline", "name where to send to (telegram)", {"spec.notifications": {}},
         {"spec.notifications": ...}),
    Case("FeedPipeline", "give exactly one of b2, s3 and folder", {"spec.backup.destination": {}},
         {"spec.backup.destination": {"folder": {"path": "backups"}}}),
    Case("FeedPipeline", "give exactly one of b2, s3 and folder",
         {"spec.backup.destination.folder": {"path": "backups"}}),
    Case("FeedPipeline", "path must be absolute, since the volume is mounted there",
         {"spec.backup.destination": {"folder": {"path": "backups", "claimName": "disk"}}},
         {"spec.backup.destination": {"folder": {"path": "/backups", "claimName": "disk"}}}),
    *(
        Case("FeedPipeline", "must not be in one Secret",
             {"spec.backup.destination": {place: {"bucket": "bucket1", "credentialsSecretRef": {"name": "same"}}},
              "spec.backup.encryption.keySecretRef.name": "same"},
             {"spec.backup.destination": {place: {"bucket": "bucket1", "credentialsSecretRef": {"name": "one"}}},
              "spec.backup.encryption.keySecretRef.name": "other"})
        for place in ("b2", "s3")
    ),
    Case("FeedPipeline", "from and to are the same",
         {"spec.notifications.telegram.quietHours": {"from": "22:00", "to": "22:00"}},
         {"spec.notifications.telegram.quietHours": {"from": "22:00", "to": "07:00"}}),
    Case("FeedPipeline", "a volume cannot shrink", {"spec.postgres.managed.storage": "1Gi"},
         {"spec.postgres.managed.storage": "30Gi"}),
    # the kinds to come
    Case("ExchangeAccount", "give stream, rest or both", {"spec.exchange.endpoints": {}}),
    Case("ExchangeAccount", "the pipeline of an account is immutable", {"spec.pipelineRef.name": "other"},
         {"spec.suspend": True}),
    Case("ExchangeAccount", "the exchange of an account is immutable", {"spec.exchange.market": "UsdM"},
         {"spec.credentialsSecretRef.name": "other"}),
    Case("FeedBackup", "a backup is one run and immutable", {"spec.pipelineRef.name": "other"},
         {"metadata.labels": {"a": "b"}}),
    Case("FeedRestore", "a restore is one run and immutable", {"spec.toTime": "2026-11-26T03:00:00Z"},
         {"metadata.labels": {"a": "b"}}),
    Case("FeedRestore", "give toTime or backupId, not both",
         {"spec.backupId": "20261125T030000Z-logical-0a1b2c"},
         {"spec.backupId": "20261125T030000Z-logical-0a1b2c", "spec.toTime": ...}),
]  # fmt: skip

RULES = {
    (kind.name, rule.message): rule for kind in KINDS for _, model in objects_of(kind.model) for rule in model.rules
}


def rule_of(case: Case) -> Rule:
    """The one it is about; a case for no rule, or for two, is a mistake in the case."""
    found = [rule for (kind, message), rule in RULES.items() if kind == case.kind and case.says in message]
    assert len(found) == 1, f"{case.kind}, {case.says!r}: {len(found)} rules say so"
    return found[0]


def changed(document: Object, changes: Changes) -> Object:
    for path, value in changes.items():
        document = samples.put(document, path, value)
    return document


def case_name(case: Case) -> str:
    return f"{case.kind}-{case.says[:30]}"


def test_every_rule_has_a_case() -> None:
    """A rule written later fails here until somebody breaks it on purpose above."""
    tried = {(case.kind, rule_of(case).message) for case in CASES}
    assert tried == set(RULES)
    assert NAME_RULE.message in {message for _, message in RULES}


@pytest.mark.parametrize("case", [case for case in CASES if not rule_of(case).transition], ids=case_name)
def test_a_bad_object_is_refused_in_words(api_cluster: Cluster, api_namespace: str, case: Case) -> None:
    bad = changed(samples.full(case.kind), case.bad)
    done = api_cluster.kubectl("apply", "-n", api_namespace, "-f", "-", text=json.dumps(bad), check=False)
    assert done.returncode != 0, done.stdout
    message = rule_of(case).message
    assert message in done.stderr
    # The place is named too, where the rule names one.
    assert rule_of(case).field_path.lstrip(".") in done.stderr
    if case.kind in ("ExchangeFeed", "FeedPipeline"):
        with pytest.raises(ResourceError) as caught:
            load_texts({"bad.yaml": json.dumps(bad)}, local=True)
        assert message in str(caught.value), "local mode and the API server disagree"


@pytest.mark.parametrize("case", [case for case in CASES if case.good and not rule_of(case).transition], ids=case_name)
def test_its_good_neighbour_is_taken(api_cluster: Cluster, api_namespace: str, case: Case) -> None:
    """So that the case above fails for the rule and for nothing else."""
    good = changed(samples.full(case.kind), case.good)
    api_cluster.kubectl("apply", "-n", api_namespace, "-f", "-", text=json.dumps(good))
    if case.kind in ("ExchangeFeed", "FeedPipeline"):
        load_texts({"good.yaml": json.dumps(good)}, local=True)


@pytest.mark.parametrize("case", [case for case in CASES if rule_of(case).transition], ids=case_name)
def test_what_is_immutable_stays(api_cluster: Cluster, api_namespace: str, case: Case) -> None:
    first = samples.full(case.kind)
    api_cluster.kubectl("apply", "-n", api_namespace, "-f", "-", text=json.dumps(first))
    bad = changed(first, case.bad)
    done = api_cluster.kubectl("apply", "-n", api_namespace, "-f", "-", text=json.dumps(bad), check=False)
    assert done.returncode != 0, done.stdout
    assert rule_of(case).message in done.stderr
    good = changed(copy.deepcopy(first), case.good)
    assert good != first
    api_cluster.kubectl("apply", "-n", api_namespace, "-f", "-", text=json.dumps(good))

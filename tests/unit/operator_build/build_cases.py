"""The cases whose manifests are kept in golden/: resources as users write them, and what the cluster knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from feedmill.resources.account import ExchangeAccount
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator.build.backup import RunInputs, run_job
from feedmill_operator.build.feed import build_feed
from feedmill_operator.build.inputs import ClusterFacts, FeedInputs, Manifest, Owner, PipelineInputs
from feedmill_operator.build.objects import Place
from feedmill_operator.build.pipeline import build_pipeline
from feedmill_operator.names import Run

IMAGE = "ghcr.io/feedmill/services:0.1.0"
# With every character that a URL gives a meaning to.
REDIS_PASSWORD = "Redis-Password/?#@:%&+ä"
POSTGRES_PASSWORD = "Postgres-Password/?#@:%&+ä"
RUN_UID = "33333333-3333-4333-8333-333333333333"

FEED = """
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: btc, namespace: feeds}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  instruments: {symbols: [BTC-USDT, ETH-USDT]}
  channels: [{name: Trades}, {name: Book, depth: 50}]
"""
MANAGED = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main, namespace: feeds}
spec:
  redis: {managed: {}}
  postgres: {managed: {}}
"""
OWN = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main, namespace: feeds}
spec:
  image: registry.example/services@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  redis:
    urlSecretRef: {name: servers, key: redis}
    tls: {caSecretRef: {name: servers, key: ca.crt}}
    circuitBreaker: {failureThreshold: 3, resetTimeout: 10s}
  postgres:
    urlSecretRef: {name: database-app, key: uri}
    tls: {caSecretRef: {name: database-ca, key: ca.crt}}
  processor:
    replicas: 3
    resources: {requests: {cpu: 2, memory: 1Gi}, limits: {cpu: "4"}}
    podTemplate:
      metadata:
        labels: {team: data, app.kubernetes.io/component: other, feedmill.dev/pipeline: other, feedmill.dev/feed: other}
        annotations: {note: kept, feedmill.dev/restarted: yesterday}
      spec:
        nodeSelector: {disk: fast}
        tolerations: [{key: data, operator: Exists}]
        topologySpreadConstraints:
          - maxSkew: 1
            topologyKey: topology.kubernetes.io/zone
            whenUnsatisfiable: DoNotSchedule
            labelSelector: {matchLabels: {team: data}}
        priorityClassName: high
        runtimeClassName: gvisor
        imagePullSecrets: [{name: registry}]
        terminationGracePeriodSeconds: 90
  egress: office
  candles: {intervals: [1m, 1h]}
  retention: {trades: 7d}
  logLevel: Debug
  backup:
    schedule: "0 3 * * *"
    destination: {b2: {bucket: backups, credentialsSecretRef: {name: b2}}}
    encryption: {keySecretRef: {name: backup-key, key: key}}
  monitoring: {podMonitor: Disabled, prometheusRule: Disabled, tracing: {otlpEndpoint: "http://otel:4318"}}
"""
OWN_FEED = """
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: deribit, namespace: feeds}
spec:
  pipelineRef: {name: main}
  exchange:
    name: deribit
    market: Derivatives
    environment: Testnet
    endpoints: {stream: "wss://proxy.example/ws"}
    credentialsSecretRef: {name: deribit-key}
  instruments: {symbols: [BTC-PERPETUAL, ETH-PERPETUAL]}
  channels: [{name: Trades}, {name: Candles, interval: 1m}]
  receiver:
    replicas: 2
    spill: {size: 4Gi}
    reconnect: {maxBackoff: 30s, stableAfter: 20s, silenceTimeout: 15s}
    batching: {mode: Latency, maxAge: 5ms}
    memory: 128Mi
    resources: {limits: {memory: 128Mi}}
    podTemplate:
      spec:
        affinity:
          nodeAffinity:
            requiredDuringSchedulingIgnoredDuringExecution:
              nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [tokyo]}]}]
  distributor: {replicas: 2, gapGrace: 1s, imageInterval: 2s}
  logLevel: Warning
"""
ACCOUNT = """
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeAccount
metadata: {name: fund, namespace: feeds}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  credentialsSecretRef: {name: fund-key}
"""
OPTIONS = """
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeAccount
metadata: {name: options, namespace: feeds}
spec:
  pipelineRef: {name: main}
  exchange:
    name: deribit
    market: Derivatives
    environment: Testnet
    endpoints: {stream: "wss://proxy.example/ws"}
  credentialsSecretRef: {name: servers}
  suspend: true
"""
POOL = {
    "replicas": 2,
    "keyEncryptionSecretRef": {"name": "wrapping", "key": "keys"},
    "permissions": {"withdraw": "Flag", "checkEvery": "1h"},
    "resources": {"limits": {"memory": "1Gi"}},
    "podTemplate": {"spec": {"nodeSelector": {"disk": "fast"}}},
}

BACKUP = {
    "schedule": "0 3 * * *",
    "timeZone": "Europe/Berlin",
    "destination": {"folder": {"path": "/backups", "claimName": "backups"}},
    "encryption": {"keySecretRef": {"name": "backup-key", "key": "keys"}},
    "continuous": {"enabled": True, "spool": {"size": "1Gi"}},
    "scratch": {"size": "50Gi"},
    "resources": {"limits": {"memory": "3Gi"}},
    "podTemplate": {"spec": {"nodeSelector": {"disk": "fast"}}},
}
NOTIFICATIONS = {"telegram": {"botTokenSecretRef": {"name": "telegram", "key": "token"}, "chatId": "-1001"}}

Build = Callable[[], list[Manifest]]
Inputs = FeedInputs | PipelineInputs | RunInputs


def feed(text: str, **changes: Any) -> ExchangeFeed:
    """``changes``: of the spec; a mapping goes into what is there."""
    return ExchangeFeed.model_validate(_changed(text, changes))


def pipeline(text: str, **changes: Any) -> FeedPipeline:
    return FeedPipeline.model_validate(_changed(text, changes))


def account(text: str, **changes: Any) -> ExchangeAccount:
    return ExchangeAccount.model_validate(_changed(text, changes))


def _changed(text: str, changes: Mapping[str, Any]) -> Any:
    document = yaml.safe_load(text)
    for name, value in changes.items():
        old = document["spec"].get(name)
        document["spec"][name] = old | value if isinstance(old, dict) else value
    return document


def of_feed(feed: ExchangeFeed, pipeline: FeedPipeline, *, restart: str = "") -> FeedInputs:
    owner = Owner("ExchangeFeed", feed.metadata.name, "11111111-1111-4111-8111-111111111111")
    return FeedInputs(feed, pipeline, owner, pipeline.spec.image or IMAGE, ClusterFacts(), restart)


def of_pipeline(
    pipeline: FeedPipeline,
    *feeds: ExchangeFeed,
    accounts: Sequence[ExchangeAccount] = (),
    migrated: bool = True,
    facts: ClusterFacts | None = None,
    restart: str = "",
) -> PipelineInputs:
    return PipelineInputs(
        pipeline=pipeline,
        owner=Owner("FeedPipeline", pipeline.metadata.name, "22222222-2222-4222-8222-222222222222"),
        image=pipeline.spec.image or IMAGE,
        feeds=feeds,
        accounts=accounts,
        facts=facts or ClusterFacts(),
        migrated=migrated,
        redis_password=REDIS_PASSWORD if pipeline.spec.redis.managed else "",
        postgres_password=POSTGRES_PASSWORD if pipeline.spec.postgres.managed else "",
        restart=restart,
    )


def _of(inputs: Inputs) -> Build:
    if isinstance(inputs, FeedInputs):
        return lambda: build_feed(inputs)
    if isinstance(inputs, RunInputs):
        owner = Owner("FeedRestore" if inputs.run is Run.RESTORE else "FeedBackup", inputs.name, RUN_UID)
        return lambda: [run_job(Place("feeds", "main", owner), inputs)]
    return lambda: build_pipeline(inputs)


def _cases() -> Iterator[tuple[str, Inputs]]:
    small, main = feed(FEED), pipeline(MANAGED)
    shards = feed(FEED, receiver={"shards": 5, "replicas": 2}, distributor={"replicas": 2})
    yield "managed-feed", of_feed(small, main)
    yield "managed-pipeline", of_pipeline(main, small)
    yield "managed-pipeline-not-migrated", of_pipeline(main, migrated=False)
    yield "own-feed", of_feed(feed(OWN_FEED), pipeline(OWN))
    yield "own-pipeline", of_pipeline(pipeline(OWN), feed(OWN_FEED), small)
    yield "shards-feed", of_feed(shards, main)
    yield "suspended-feed", of_feed(feed(FEED, suspend=True), main)
    yield "suspended-pipeline", of_pipeline(pipeline(MANAGED, suspend=True), small)
    yield "restarted-feed", of_feed(small, main, restart="2026-11-26T00:00:00Z")
    yield "restarted-pipeline", of_pipeline(main, small, restart="2026-11-26T00:00:00Z")
    known = ClusterFacts(pod_monitor=True, prometheus_rule=True)
    yield "monitored-pipeline", of_pipeline(main, small, accounts=[account(ACCOUNT)], facts=known)
    yield "accounts-pipeline", of_pipeline(main, accounts=[account(ACCOUNT)])
    both = [account(ACCOUNT), account(OPTIONS)]
    yield "own-accounts-pipeline", of_pipeline(pipeline(OWN, accounts=POOL), small, accounts=both)
    backed = pipeline(MANAGED, backup=BACKUP, notifications=NOTIFICATIONS)
    yield "backups-pipeline", of_pipeline(backed, small, accounts=[account(ACCOUNT)])
    yield "run-backup", RunInputs(pipeline(OWN), IMAGE, Run.BASE, "before-upgrade")
    moment = ("--to", "2026-11-25T03:00:00Z")
    yield "run-restore", RunInputs(backed, IMAGE, Run.RESTORE, "back", moment)


INPUTS = dict(_cases())
CASES = {name: _of(inputs) for name, inputs in INPUTS.items()}


def find(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The only one of a kind, or the one of that name."""
    (found,) = [each for each in manifests if each["kind"] == kind and (not name or each["metadata"]["name"] == name)]
    return found


def templates(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Kind/name -> pod template."""
    found = {}
    for each in manifests:
        spec = each.get("spec", {})
        spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
        if "template" in spec:
            found[f"{each['kind']}/{each['metadata']['name']}"] = spec["template"]
    return found

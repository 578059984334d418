"""Manifests for tests."""

from __future__ import annotations

import copy
from typing import Any

import yaml

from clusterkit.api import Object
from clusterkit.tool import ROOT

VERSION = "feedmill.dev/v1alpha1"
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))


def example_documents() -> list[Object]:
    """Every object of ours in examples/, namespaces taken out."""
    found: list[Object] = []
    for path in EXAMPLES:
        for document in yaml.safe_load_all(path.read_text()):
            if document and document["apiVersion"] == VERSION:
                document["metadata"].pop("namespace", None)
                found.append(document)
    return found


def full(kind: str) -> Object:
    """An object of ``kind`` with as many fields as the examples (or the list below) know."""
    found = [document for document in example_documents() if document["kind"] == kind]
    return copy.deepcopy(max(found, key=lambda document: len(str(document)), default=_OTHERS.get(kind)))


_OTHERS: dict[str, Object] = {
    "FeedBackup": {
        "apiVersion": VERSION,
        "kind": "FeedBackup",
        "metadata": {"name": "now"},
        "spec": {"pipelineRef": {"name": "main"}},
    },
    "FeedRestore": {
        "apiVersion": VERSION,
        "kind": "FeedRestore",
        "metadata": {"name": "drill"},
        "spec": {
            "pipelineRef": {"name": "main"},
            "mode": "Restore",
            "toTime": "2026-11-25T03:00:00Z",
        },
    },
}


def pipeline(name: str = "main", namespace: str | None = None, **spec: Any) -> Object:
    """With servers of one's own (Secrets ``redis`` and ``postgres``)."""
    return {
        "apiVersion": VERSION,
        "kind": "FeedPipeline",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": {
            "redis": {"urlSecretRef": {"name": "redis", "key": "url"}},
            "postgres": {"urlSecretRef": {"name": "postgres", "key": "url"}},
            **spec,
        },
    }


def feed(name: str = "spot", namespace: str | None = None, **spec: Any) -> Object:
    return {
        "apiVersion": VERSION,
        "kind": "ExchangeFeed",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": {
            "pipelineRef": {"name": "main"},
            "exchange": {"name": "binance", "market": "Spot"},
            "instruments": {"symbols": ["BTC-USDT", "ETH-USDT"]},
            "channels": [{"name": "Trades"}, {"name": "Ticker"}],
            **spec,
        },
    }


def account(name: str = "fund", namespace: str | None = None, **spec: Any) -> Object:
    """With its keys in the Secret ``NAME-key``."""
    return {
        "apiVersion": VERSION,
        "kind": "ExchangeAccount",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": {
            "pipelineRef": {"name": "main"},
            "exchange": {"name": "binance", "market": "Spot"},
            "credentialsSecretRef": {"name": f"{name}-key"},
            **spec,
        },
    }


def server_secrets(
    namespace: str, redis: str = "redis://redis:6379", postgres: str = "postgresql://p/f"
) -> list[Object]:
    """The Secrets that :func:`pipeline` names."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": {"url": url},
        }
        for name, url in (("redis", redis), ("postgres", postgres))
    ]


def put(document: Object, path: str, value: Any) -> Object:
    """A copy with the value at ``spec.channels.0.depth`` replaced, or removed where it is ``...``."""
    done = copy.deepcopy(document)
    *around, last = path.split(".")
    place: Any = done
    for part in around:
        if isinstance(place, list):
            place = place[int(part)]
        else:
            place = place.setdefault(part, {})
    key: Any = int(last) if isinstance(place, list) else last
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return done

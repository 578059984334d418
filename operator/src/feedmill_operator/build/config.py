"""The configuration of the processes: what of the resources they need, as the file they mount and follow.

What only shapes pods (replicas, resources, images) is left out, so that changing it reloads nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from feedmill.resources.account import ExchangeAccount
from feedmill.resources.account_pool import AccountPool
from feedmill.resources.base import API_VERSION, Model
from feedmill.resources.confighash import config_hash
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.shape import with_defaults
from feedmill_operator import names
from feedmill_operator.build.inputs import Manifest
from feedmill_operator.build.memo import Memo
from feedmill_operator.build.objects import Head, Place, manifest

FILE = "resources.yaml"
COMPONENT = "config"
MOST_BYTES = 1_000_000
"""The API server takes 1 MiB an object."""
_SHAPES_PODS = {"replicas", "resources", "podTemplate"}
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml's takes a fifth of the time."""
_OF_FEED_PROCESSES = ("redis", "postgres", "egress")
"""What receivers and distributors read of their pipeline; ``postgres`` since one must be there. Their log level is
the feed's."""
_OF_ACCOUNTS = (*_OF_FEED_PROCESSES, "logLevel")
"""What account receivers read of it, beside ``accounts.permissions``."""
_OF_CLUSTER = {"image", "processor", "accounts", "api", "backup", "notifications", "monitoring", "suspend"}

_OF_PODS = ("image", "api", "monitoring")
"""What also backups and notifications have no use for."""


class ConfigTooLarge(ValueError):
    """The configuration does not fit into one ConfigMap; the message says what to do."""


def _dump(document: Mapping[str, Any]) -> str:
    text: str = yaml.dump(document, Dumper=_DUMPER, sort_keys=False, width=120)
    return text


_yaml = Memo(_dump, most=16_000_000)


def feed_config_text(feed: ExchangeFeed, pipeline: FeedPipeline) -> str:
    """What the receivers and distributors of a feed mount: its pipeline (as far as they need it) and the feed."""
    spec = _spec(pipeline)
    shared = {name: spec[name] for name in _OF_FEED_PROCESSES if name in spec} | _traced(spec)
    documents = (_document(pipeline, shared), _document(feed, _feed_spec(feed)))
    return "---\n".join(_yaml(each) for each in documents)


def pipeline_config_text(pipeline: FeedPipeline, feeds: Iterable[ExchangeFeed]) -> str:
    """What processors and maintenance mount: the pipeline and its feeds, a feed a line, since there may be a thousand.

    Raises ConfigTooLarge.
    """
    spec = _spec(pipeline)
    shared = _shared(spec)
    ordered = sorted(feeds, key=lambda each: each.key)
    parts = [
        _yaml(_document(pipeline, shared)),
        *(_line(_document(feed, _feed_spec(feed))) + "\n" for feed in ordered),
    ]
    return _one_map(parts, f"pipeline {pipeline.metadata.name} with its {len(ordered)} feeds", "the feeds")


def _shared(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Of a pipeline's spec, what its processes read: of backups too, since processors tell of those that are due and
    not there."""
    shared = {name: value for name, value in spec.items() if name not in _OF_CLUSTER} | _traced(spec)
    if "backup" in spec:
        shared["backup"] = {name: value for name, value in spec["backup"].items() if name not in _SHAPES_PODS}
    return shared


def general_config_text(
    pipeline: FeedPipeline, feeds: Iterable[ExchangeFeed], accounts: Iterable[ExchangeAccount]
) -> str:
    """What backups and notifications mount: pipeline, feeds and accounts, with which processes there should be.

    Raises ConfigTooLarge.
    """
    spec = _spec(pipeline)
    shared = {name: value for name, value in spec.items() if name not in _OF_PODS} | _traced(spec)
    ordered = sorted(feeds, key=lambda each: each.key)
    parts = [
        _yaml(_document(pipeline, _without_pods(shared))),
        *(_line(_document(feed, _without_pods(_spec(feed)))) + "\n" for feed in ordered),
        *(_line(_document(each, _spec(each))) + "\n" for each in sorted(accounts, key=lambda each: each.key)),
    ]
    return _one_map(parts, f"pipeline {pipeline.metadata.name} with its {len(ordered)} feeds", "the feeds")


def _without_pods(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Without how the pods of each part are made; how many there are stays."""
    return {
        name: {key: item for key, item in value.items() if key not in ("resources", "podTemplate")}
        if isinstance(value, dict)
        else value
        for name, value in spec.items()
    }


def accounts_config_text(pipeline: FeedPipeline, accounts: Iterable[ExchangeAccount]) -> str:
    """What account receivers mount: the pipeline, as far as they need it, and its ExchangeAccounts, one a line.

    Raises ConfigTooLarge.
    """
    spec = _spec(pipeline)
    shared = {name: spec[name] for name in _OF_ACCOUNTS if name in spec} | _traced(spec)
    pool = with_defaults(AccountPool, spec.get("accounts") or {})
    ordered = sorted(accounts, key=lambda each: each.key)
    parts = [
        _yaml(_document(pipeline, shared | {"accounts": {"permissions": pool["permissions"]}})),
        *(_line(_document(account, _spec(account))) + "\n" for account in ordered),
    ]
    return _one_map(parts, f"the {len(ordered)} ExchangeAccounts of pipeline {pipeline.metadata.name}", "them")


def _traced(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Where spans go: the only part of ``monitoring`` that is not the operator's own."""
    tracing = spec.get("monitoring", {}).get("tracing")
    return {"monitoring": {"tracing": tracing}} if tracing else {}


def _one_map(parts: Iterable[str], of: str, remedy: str) -> str:
    text = "---\n".join(parts)
    if len(text.encode()) > MOST_BYTES:
        raise ConfigTooLarge(
            f"the configuration of {of} has {len(text.encode())} bytes, more than the {MOST_BYTES} of one ConfigMap:"
            f" spread {remedy} over pipelines"
        )
    return text


def feed_config(place: Place, feed: ExchangeFeed, pipeline: FeedPipeline) -> Manifest:
    return _config_map(place, names.feed_config(feed.metadata.name), feed_config_text(feed, pipeline))


def pipeline_config(place: Place, pipeline: FeedPipeline, feeds: Iterable[ExchangeFeed]) -> Manifest:
    return _config_map(place, names.pipeline_config(pipeline.metadata.name), pipeline_config_text(pipeline, feeds))


def general_config(
    place: Place, pipeline: FeedPipeline, feeds: Iterable[ExchangeFeed], accounts: Iterable[ExchangeAccount]
) -> Manifest:
    text = general_config_text(pipeline, feeds, accounts)
    return _config_map(place, names.general_config(pipeline.metadata.name), text)


def accounts_config(place: Place, pipeline: FeedPipeline, accounts: Iterable[ExchangeAccount]) -> Manifest:
    name = names.accounts_config(pipeline.metadata.name)
    return _config_map(place, name, accounts_config_text(pipeline, accounts))


def _config_map(place: Place, name: str, text: str) -> Manifest:
    annotations = {names.CONFIG_HASH: config_hash({FILE: text})}
    return manifest(place, Head("v1", "ConfigMap", name, annotations), COMPONENT, data={FILE: text})


def _document(resource: ExchangeFeed | FeedPipeline | ExchangeAccount, spec: Mapping[str, Any]) -> dict[str, Any]:
    namespace, name = resource.key
    return {
        "apiVersion": API_VERSION,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": dict(spec),
    }


def _line(document: Mapping[str, Any]) -> str:
    """As JSON that is YAML too: JSON's own escapes of what lies beyond U+FFFF, pairs of surrogates, are not."""
    text = json.dumps(document, separators=(", ", ": "), ensure_ascii=False)
    return re.sub(r"[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", text)


def _spec(resource: ExchangeFeed | FeedPipeline | ExchangeAccount) -> dict[str, Any]:
    """With the schema's defaults, so that a later version of the services, with others, changes nothing."""
    spec: Model = resource.spec
    written = spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    done: dict[str, Any] = with_defaults(type(spec), written)
    return done


def _feed_spec(feed: ExchangeFeed) -> dict[str, Any]:
    spec = {name: value for name, value in _spec(feed).items() if name != "suspend"}
    for role in ("receiver", "distributor"):
        spec[role] = {name: value for name, value in spec[role].items() if name not in _SHAPES_PODS}
    return spec

"""NetworkPolicies, one a role: who may ask a pod, and whom it may ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feedmill_operator import names
from feedmill_operator.build import accounts, secrets
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.monitoring import scraped
from feedmill_operator.build.objects import Head, Place, manifest

_DNS = {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}
_ANY_TCP = {"ports": [{"protocol": "TCP", "port": 1, "endPort": 65535}]}
"""Servers of the user's own are anywhere and on any port."""
_PORTS = {names.REDIS: secrets.REDIS_PORT, names.POSTGRES: secrets.POSTGRES_PORT}
_ASKS = {
    names.RECEIVER: (names.REDIS,),
    names.DISTRIBUTOR: (names.REDIS,),
    names.PROCESSOR: (names.REDIS, names.POSTGRES),
    names.ACCOUNTS: (names.REDIS, names.POSTGRES),
    names.MIGRATION: (names.POSTGRES,),
    names.MAINTENANCE: (names.REDIS, names.POSTGRES),
    names.NOTIFY: (names.POSTGRES,),
    names.BACKUP: (names.POSTGRES,),
    names.BACKUP_RUN: (names.POSTGRES,),
}
_SERVES_HEALTH = (
    names.RECEIVER, names.DISTRIBUTOR, names.PROCESSOR, names.ACCOUNTS, names.NOTIFY, names.BACKUP, names.BACKUP_RUN,
)  # fmt: skip
_ASKS_OTHERS = (names.RECEIVER, names.ACCOUNTS, names.NOTIFY, names.BACKUP, names.BACKUP_RUN)
"""Who asks exchanges, Telegram, or where backups are stored: anywhere and on any port."""


def policies(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    roles = [role for role in _ASKS if _wanted(inputs, role)]
    made = [_policy(place, role, _health_ingress(place, inputs, role), _egress(place, inputs, role)) for role in roles]
    managed = {names.REDIS: inputs.pipeline.spec.redis.managed, names.POSTGRES: inputs.pipeline.spec.postgres.managed}
    made += [_policy(place, server, [_from_pods(place, server, roles)], []) for server in managed if managed[server]]
    return made


def _wanted(inputs: PipelineInputs, role: str) -> bool:
    backup = inputs.pipeline.spec.backup
    if role == names.ACCOUNTS:
        return accounts.wanted(inputs)
    if role == names.NOTIFY:
        return inputs.pipeline.spec.notifications is not None
    if role == names.BACKUP:
        return backup is not None and backup.continuous.enabled
    return role != names.BACKUP_RUN or backup is not None


def _policy(place: Place, component: str, ingress: Sequence[Any], egress: Sequence[Any]) -> Manifest:
    spec = {
        "podSelector": {"matchLabels": {names.COMPONENT: component, names.PIPELINE: place.pipeline}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": list(ingress),
        "egress": list(egress),
    }
    head = Head("networking.k8s.io/v1", "NetworkPolicy", f"{place.pipeline}-{component}")
    return manifest(place, head, component, spec=spec)


def _health_ingress(place: Place, inputs: PipelineInputs, role: str) -> list[Any]:
    if role not in _SERVES_HEALTH:
        return []
    port = [{"protocol": "TCP", "port": names.HEALTH_PORT}]
    operator = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": inputs.facts.operator_namespace}}}
    if scraped(inputs):
        # Prometheus is in a namespace nobody told; what the port serves holds no secret.
        return [{"from": [{"namespaceSelector": {}}], "ports": port}]
    asking = [operator]
    if inputs.pipeline.spec.notifications is not None:
        asking.append({"podSelector": {"matchLabels": place.selector(names.NOTIFY)}})
    return [{"from": asking, "ports": port}]


def _egress(place: Place, inputs: PipelineInputs, role: str) -> list[Any]:
    spec = inputs.pipeline.spec
    managed = {names.REDIS: spec.redis.managed, names.POSTGRES: spec.postgres.managed}
    own = any(managed[server] is None for server in _ASKS[role])
    if role in _ASKS_OTHERS or own or spec.monitoring.tracing is not None:
        return [_DNS, _ANY_TCP]
    asked = [
        {
            "to": [{"podSelector": {"matchLabels": place.selector(server)}}],
            "ports": [{"protocol": "TCP", "port": _PORTS[server]}],
        }
        for server in _ASKS[role]
    ]
    return [_DNS, *asked]


def _from_pods(place: Place, server: str, roles: Sequence[str]) -> Any:
    asking = [role for role in roles if server in _ASKS[role]]
    selector = {
        "matchLabels": {names.PIPELINE: place.pipeline},
        "matchExpressions": [{"key": names.COMPONENT, "operator": "In", "values": asking}],
    }
    return {"from": [{"podSelector": selector}], "ports": [{"protocol": "TCP", "port": _PORTS[server]}]}

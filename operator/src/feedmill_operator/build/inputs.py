"""What the builders are given: everything resolved, nothing looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedmill.resources.account import ExchangeAccount
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline

Manifest = dict[str, Any]
"""A Kubernetes object as plain data."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The custom resource an object belongs to: deleted with it by the garbage collector."""

    kind: str
    name: str
    uid: str

    def reference(self) -> Manifest:
        """No blockOwnerDeletion: it would need rights on the owner's finalizers."""
        return {
            "apiVersion": "feedmill.dev/v1alpha1",
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
        }


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What this cluster knows, looked up once and at each resync."""

    pod_monitor: bool = False
    """The CRD podmonitors.monitoring.coreos.com is there."""
    prometheus_rule: bool = False
    operator_namespace: str = "feedmill-system"
    """From where health is read (NetworkPolicies let it in)."""


@dataclass(frozen=True, slots=True)
class PipelineInputs:
    """Of one FeedPipeline."""

    pipeline: FeedPipeline
    owner: Owner
    image: str
    """``spec.image``, else the one pinned in status."""
    feeds: Sequence[ExchangeFeed]
    """Accepted feeds of the pipeline, by name."""
    accounts: Sequence[ExchangeAccount]
    """Valid ExchangeAccounts of the pipeline, by name: suspended ones too, and those whose Secret is not there yet."""
    facts: ClusterFacts
    migrated: bool
    """The migration of this image and database succeeded: processors of it may start."""
    server_images: Mapping[str, str] = field(default_factory=dict)
    """Managed server -> image it keeps for now; ``image`` where it is not named."""
    redis_password: str = ""
    """Of a managed Redis, kept from its Secret or newly made; empty when not managed."""
    postgres_password: str = ""
    restart: str = ""
    """Value of the restart annotation."""


@dataclass(frozen=True, slots=True)
class FeedInputs:
    """Of one ExchangeFeed and the pipeline it names."""

    feed: ExchangeFeed
    pipeline: FeedPipeline
    owner: Owner
    image: str
    facts: ClusterFacts
    restart: str = ""

"""Parts that several resources share: references, resources, pod templates."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from feedmill.resources.base import DNS_SUBDOMAIN, KEY_OF_SECRET, Free, Hint, Integer, Label, Model
from feedmill.resources.types import Duration

_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"


def _number_as_text(value: object) -> object:
    # Kubernetes reads `cpu: 1` and `cpu: "1"` alike.
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


ResourceQuantity = Annotated[
    str,
    Field(pattern=_QUANTITY),
    BeforeValidator(_number_as_text),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": _QUANTITY, "x-kubernetes-int-or-string": True}
    ),
    Hint("write a Kubernetes quantity, such as 500m (CPU) or 256Mi (memory)"),
]
SecretName = Annotated[
    str,
    Field(pattern=DNS_SUBDOMAIN),
    Hint("write the name of a Secret, not its content"),
]
Replicas = Annotated[Integer, Field(ge=1, le=16)]


class PipelineRef(Model):
    """Reference to a FeedPipeline of the same namespace."""

    name: Label
    """Name of the FeedPipeline."""


class SecretRef(Model):
    """Reference to a Secret of the same namespace."""

    name: SecretName
    """Name of the Secret."""


class SecretKeyRef(Model):
    """Reference to one key of a Secret of the same namespace."""

    name: SecretName
    """Name of the Secret."""
    key: Annotated[str, Field(pattern=KEY_OF_SECRET), Hint("write the key's name inside the Secret, such as url")]
    """Key inside the Secret."""


class Tls(Model):
    """How the server's certificate is checked. The URL itself says whether TLS is used."""

    ca_secret_ref: SecretKeyRef
    """The certificate authority (PEM) to trust instead of the system's."""


class CircuitBreaker(Model):
    """When to stop asking a server that does not answer."""

    failure_threshold: Annotated[Integer, Field(ge=1, le=1000)] = 5
    """Failures in a row after which the breaker opens."""
    reset_timeout: Duration = Duration("30s")
    """How long it stays open before one probe is let through."""


class ResourceRequirements(Model):
    """CPU and memory of a container, as in Kubernetes. Not used in local mode."""

    requests: dict[str, ResourceQuantity] = Field(default_factory=dict)
    """What is set aside: `cpu`, `memory`, `ephemeral-storage`."""
    limits: dict[str, ResourceQuantity] = Field(default_factory=dict)
    """What must not be exceeded."""


class PodMetadata(Model):
    """Labels and annotations added to the pods."""

    labels: dict[str, str] = Field(default_factory=dict)
    """Labels added to the pods."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations added to the pods."""


class PodSpec(Model):
    """Where and how the pods are scheduled."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels a node must have."""
    tolerations: list[Free] = Field(default_factory=list)
    """Taints the pods tolerate."""
    affinity: Free | None = None
    """Node and pod affinity."""
    topology_spread_constraints: list[Free] = Field(default_factory=list)
    """How the pods are spread, instead of the default over nodes."""
    priority_class_name: Annotated[str, Field(pattern=DNS_SUBDOMAIN)] | None = None
    """PriorityClass of the pods."""
    runtime_class_name: Annotated[str, Field(pattern=DNS_SUBDOMAIN)] | None = None
    """RuntimeClass of the pods."""
    image_pull_secrets: list[SecretRef] = Field(default_factory=list)
    """Secrets to pull the image with."""
    termination_grace_period_seconds: Annotated[Integer, Field(ge=1, le=3600)] | None = None
    """Time the pods get to drain when they are stopped."""


class PodTemplate(Model):
    """Additions to the pods the operator builds. Not used in local mode."""

    metadata: PodMetadata = Field(default_factory=PodMetadata)
    """Labels and annotations."""
    spec: PodSpec = Field(default_factory=PodSpec)
    """Scheduling."""

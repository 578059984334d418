"""What the operator is told when it starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from feedmill_operator.names import FIELD_MANAGER

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


DEFAULT_NAMESPACE = "feedmill-system"
DEFAULT_LEASE = FIELD_MANAGER


class BadOption(ValueError):
    """An option cannot be right; the message names it, its value and the remedy."""


@dataclass(frozen=True, slots=True)
class LeaseOptions:
    """Leader election. Times are seconds."""

    enabled: bool = True
    name: str = DEFAULT_LEASE
    duration: float = 15.0
    """A Lease not renewed for so long may be taken by another."""
    renew_deadline: float = 10.0
    """A leader that could not renew for so long gives up, well before another may take over."""
    retry: float = 2.0
    """Between two tries to take or to renew."""


@dataclass(frozen=True, slots=True)
class Options:
    """All of it, checked. Times are seconds."""

    operand_image: str
    """For pipelines that name none and have none pinned in their status."""
    operator_namespace: str = DEFAULT_NAMESPACE
    """Where the operator runs and has its Lease."""
    namespaces: tuple[str, ...] = ()
    """The only ones it watches; empty = all."""
    identity: str = "feedmill-operator"
    """Of this process among the replicas."""
    workers: int = 8
    """Objects reconciled at a time."""
    resync: float = 120.0
    """Every object is looked at again so often, give or take a tenth."""
    health_host: str = "0.0.0.0"  # noqa: S104 - the kubelet asks by the pod's address
    health_port: int = 8080
    log_level: str = "info"
    kubeconfig: Path | None = None
    """None = the pod's service account, else ``KUBECONFIG``."""
    lease: LeaseOptions = field(default_factory=LeaseOptions)
    deaf_after: float = 300.0
    """A watch that shows no renewal of the operator's own Lease for so long makes ``/healthz`` fail."""
    operand_health_interval: float = 15.0
    """How often the services' ``/health`` is read."""
    operand_health_timeout: float = 2.0
    otlp_endpoint: str = ""
    """Where spans go (OTLP over HTTP); empty = none are made."""

    def __post_init__(self) -> None:
        """Raises BadOption."""
        if not self.operand_image.strip():
            raise BadOption("--operand-image is empty: give the image of the services, with its tag or digest")
        for option, names in (("--namespace", self.namespaces), ("--operator-namespace", (self.operator_namespace,))):
            for name in names:
                if not _NAMESPACE.fullmatch(name):
                    raise BadOption(f"{option} {name!r}: give a name of lower-case letters, digits and '-'")
        for option, count in (("--workers", self.workers),):
            if not 1 <= count <= 256:
                raise BadOption(f"{option} {count}: give a number from 1 to 256")
        if not 0 <= self.health_port <= 65535:
            raise BadOption(f"--health-port {self.health_port}: give a port from 1 to 65535 (0 = any free one)")
        if self.resync < 1:
            raise BadOption(f"--resync {self.resync:g}s: give at least 1s")
        if self.deaf_after < 1:
            raise BadOption(f"--deaf-after {self.deaf_after:g}s: give at least 1s")
        lease = self.lease
        if not 0 < lease.retry < lease.renew_deadline < lease.duration:
            raise BadOption(
                f"--lease-retry {lease.retry:g}s, --lease-renew-deadline {lease.renew_deadline:g}s and "
                f"--lease-duration {lease.duration:g}s must grow in this order: retry < renew deadline < duration"
            )


def seconds(option: str, text: str) -> float:
    """``120s``, ``2m``, ``500ms``, ``90`` as seconds. Raises BadOption."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise BadOption(f"{option} {text!r}: give a duration such as 30s, 2m or 500ms")
    return float(match["number"]) * _UNITS[match["unit"] or "s"]

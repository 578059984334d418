"""PodMonitor and PrometheusRule, where the cluster knows them. Each alert has a page in docs/runbooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from feedmill.resources.types import Switch
from feedmill_operator import names
from feedmill_operator.build import pods
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Head, Place, manifest

COMPONENT = "monitoring"
API = "monitoring.coreos.com/v1"


@dataclass(frozen=True, slots=True)
class Alert:
    """``expression`` selects the pipeline's pods by ``{pods}``."""

    name: str
    expression: str
    lasts: str
    severity: str
    summary: str


def _rose(counter: str, minutes: int, labels: str = "") -> str:
    """That a counter has risen lately. A series begins with its first event, when there is no 0 to have risen from."""
    chosen = f"{counter}{{{{{{pods}}{labels}}}}}"
    return f"increase({chosen}[{minutes}m]) > 0 or ({chosen} unless {chosen} offset {minutes}m) > 0"


ALERTS = (
    Alert(
        "FeedmillReceiverNotCapturing",
        "feedmill_receiver_connections{{{pods}}} == 0",
        "2m",
        "critical",
        "Receiver {{ $labels.pod }} has no open connection to its exchange.",
    ),
    Alert(
        "FeedmillReceiverBreakerOpen",
        "feedmill_receiver_breaker_state{{{pods}}} == 2",
        "1m",
        "critical",
        "Receiver {{ $labels.pod }} cannot reach Redis: what it captures is held in memory.",
    ),
    Alert(
        "FeedmillDistributorLag",
        "feedmill_distributor_lag_seconds{{{pods}}} > 10",
        "5m",
        "warning",
        "Distributor {{ $labels.pod }} is {{ $value }} seconds behind the receivers.",
    ),
    Alert(
        "FeedmillProcessorLag",
        "feedmill_processor_lag_seconds{{{pods}}} > 30",
        "5m",
        "warning",
        "Processor {{ $labels.pod }} is {{ $value }} seconds behind the distributors.",
    ),
    Alert(
        "FeedmillProcessorServerDown",
        "feedmill_processor_server_up{{{pods}}} == 0",
        "1m",
        "critical",
        "Processor {{ $labels.pod }} cannot reach its {{ $labels.server }}.",
    ),
    Alert(
        "FeedmillGaps",
        _rose("feedmill_distributor_gaps_total", 15),
        "1m",
        "warning",
        "Data of {{ $labels.pod }} has gaps: see `kubectl feedmill gaps`.",
    ),
    Alert(
        "FeedmillDeadLetters",
        _rose("feedmill_distributor_dead_letters_total", 15)
        + " or "
        + _rose("feedmill_processor_dead_letters_total", 15),
        "1m",
        "warning",
        "{{ $labels.pod }} put frames or events aside that it could not handle.",
    ),
    Alert(
        "FeedmillConfigRefused",
        _rose("feedmill_config_reloads_total", 10, ', outcome=~"refused|failed"'),
        "1m",
        "warning",
        "{{ $labels.pod }} refuses its new configuration and works on with the former one.",
    ),
)


def monitors(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    """What the spec wants and the cluster knows; ``Enabled`` is made without asking whether the kind is known."""
    wanted = inputs.pipeline.spec.monitoring
    made = []
    if scraped(inputs):
        made.append(_pod_monitor(place))
    if _on(wanted.prometheus_rule, known=inputs.facts.prometheus_rule):
        made.append(_rule(place))
    return made


def scraped(inputs: PipelineInputs) -> bool:
    """Whether a Prometheus of the cluster is to come for the metrics."""
    return _on(inputs.pipeline.spec.monitoring.pod_monitor, known=inputs.facts.pod_monitor)


def _on(switch: Switch, *, known: bool) -> bool:
    return switch is Switch.ENABLED or (switch is Switch.AUTO and known)


def _pod_monitor(place: Place) -> Manifest:
    spec = {
        "selector": {"matchLabels": {names.PIPELINE: place.pipeline, names.MANAGED_BY: names.MANAGER}},
        "podTargetLabels": [names.FEED, names.PIPELINE, names.COMPONENT, names.SHARD],
        "podMetricsEndpoints": [{"port": pods.HEALTH, "path": "/metrics", "interval": "15s"}],
    }
    return manifest(place, Head(API, "PodMonitor", f"{place.pipeline}-feedmill"), COMPONENT, spec=spec)


def _rule(place: Place) -> Manifest:
    chosen = f'namespace="{place.namespace}", feedmill_dev_pipeline="{place.pipeline}"'
    rules = [_alert(alert, chosen) for alert in ALERTS]
    spec = {"groups": [{"name": f"feedmill.{place.namespace}.{place.pipeline}", "rules": rules}]}
    return manifest(place, Head(API, "PrometheusRule", f"{place.pipeline}-feedmill"), COMPONENT, spec=spec)


def _alert(alert: Alert, chosen: str) -> Mapping[str, object]:
    return {
        "alert": alert.name,
        "expr": alert.expression.format(pods=chosen),
        "for": alert.lasts,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "runbook": f"docs/runbooks/{alert.name}.md"},
    }

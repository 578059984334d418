"""PodMonitor and PrometheusRule, where the cluster knows them. Each alert has a page in docs/runbooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from feedmill.plan import working_shards
from feedmill.resources.types import Switch
from feedmill_operator import names
from feedmill_operator.build import accounts, backup, pods
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Head, Place, manifest

COMPONENT = "monitoring"
API = "monitoring.coreos.com/v1"


class Tells(Enum):
    """What an alert tells of, and when it is written."""

    WORK = "work"
    """What processes say: always."""
    FEEDS = "feeds"
    """Processes of feeds that are not there: while some feed is to run, and the PodMonitor is ours, so that its labels
    are known."""
    PROCESSORS = "processors"
    """Likewise, while the pipeline is to run."""
    ACCOUNTS = "accounts"
    """Likewise, while it is to run and listens to accounts."""
    NOTIFIER = "notifier"
    """Likewise, while it is to run and people are to be told."""
    BACKUP_LOG = "backup log"
    """Likewise, while it is to run and its database's log is to be uploaded."""


@dataclass(frozen=True, slots=True)
class Alert:
    """``expression`` selects the pipeline's pods by ``{pods}``, and finds shards that have no pod by ``{podless}``."""

    name: str
    expression: str
    lasts: str
    severity: str
    summary: str
    tells: Tells = Tells.WORK


def _rose(counter: str, minutes: int, labels: str = "") -> str:
    """That a counter has risen lately. A series begins with its first event, when there is no 0 to have risen from; one
    that was not scraped for a while does not begin.

    How far it is looked back for a series of that name is half the window: further, and what a process counts first,
    some time after it began anew, would be taken for what the one before it had counted.
    """
    chosen, window = f"{counter}{{{{{{pods}}{labels}}}}}", f"{minutes}m"
    new = f"{chosen} unless count_over_time({chosen}[{minutes // 2}m] offset {window})"
    return f"increase({chosen}[{window}]) > 0 or ({new}) > 0"


_PODS = "{{{pods}}}"
"""Selects the pipeline's pods, in an expression that is itself an f-string."""


def _up(component: str) -> str:
    """Targets of a component; 1 where it answers."""
    return f'up{{{{{{pods}}, app_kubernetes_io_component="{component}"}}}}'


def _alone(component: str, without: str) -> str:
    """Shards that have pods of one component and none of another that answers. Both go when a feed is suspended."""
    shard = "namespace, feedmill_dev_feed, feedmill_dev_shard"
    return f"group by ({shard}) ({_up(component)}) unless on ({shard}) ({_up(without)} == 1)"


def _newest(metric: str, labels: str, chosen: str = "") -> str:
    """What processors say of the database: every replica says the same."""
    return f"max by (namespace, feedmill_dev_pipeline{labels}) (feedmill_database_{metric}{{{{{{pods}}{chosen}}}}})"


def _sent(outcome: str) -> str:
    """That messages came to this outcome lately."""
    return _rose("feedmill_notify_messages_total", 10, f', outcome="{outcome}"')


_NO_DRILL, _DRILL = ', kind!="drill"', ', kind="drill"'
_PODLESS = 'absent(up{{{pods}, feedmill_dev_feed="{feed}", feedmill_dev_shard="{shard}"}})'
"""A shard that should run and has no target at all: another shard's pods, or a pod that waits for a node, are none."""
_SHARD = "of feed {{ $labels.feedmill_dev_feed }}, shard {{ $labels.feedmill_dev_shard }}"

ALERTS = (
    Alert(
        "FeedmillReceiverAbsent",
        f"{_alone(names.DISTRIBUTOR, names.RECEIVER)} or {{podless}}",
        "3m",
        "critical",
        f"No receiver {_SHARD}, answers: nothing is captured.",
        Tells.FEEDS,
    ),
    Alert(
        "FeedmillDistributorAbsent",
        _alone(names.RECEIVER, names.DISTRIBUTOR),
        "5m",
        "critical",
        f"No distributor {_SHARD}, answers: what is captured waits in Redis.",
        Tells.FEEDS,
    ),
    Alert(
        "FeedmillProcessorAbsent",
        f"absent({_up(names.PROCESSOR)} == 1)",
        "5m",
        "critical",
        "No processor of {{ $labels.feedmill_dev_pipeline }} answers: nothing is stored, events wait in Redis.",
        Tells.PROCESSORS,
    ),
    Alert(
        "FeedmillAccountsAbsent",
        f"absent({_up(names.ACCOUNTS)} == 1)",
        "5m",
        "critical",
        "No account receiver of {{ $labels.feedmill_dev_pipeline }} answers: fills are stored when one is back.",
        Tells.ACCOUNTS,
    ),
    Alert(
        "FeedmillAccountsRefused",
        'feedmill_account_accounts{{{pods}, state="refused"}} > 0',
        "5m",
        "warning",
        "{{ $value }} accounts of {{ $labels.exchange }} {{ $labels.market }} are refused: only their user can help.",
    ),
    Alert(
        "FeedmillAccountsNotListening",
        'sum without (state) (feedmill_account_accounts{{{pods}, state=~"connecting|waiting"}}) > 0',
        "10m",
        "warning",
        "{{ $value }} accounts of {{ $labels.exchange }} {{ $labels.market }} are not listened to for 10 minutes.",
    ),
    Alert(
        "FeedmillPodDown",
        "up{{{pods}}} == 0",
        "5m",
        "warning",
        "Pod {{ $labels.pod }} does not answer.",
    ),
    Alert(
        "FeedmillPodRestarting",
        "changes(process_start_time_seconds{{{pods}}}[30m]) > 2",
        "1m",
        "warning",
        "Pod {{ $labels.pod }} has started {{ $value }} times anew within 30 minutes.",
    ),
    Alert(
        "FeedmillReceiverNotCapturing",
        "feedmill_receiver_connections{{{pods}}} == 0",
        "2m",
        "critical",
        "Receiver {{ $labels.pod }} has no open connection to its exchange.",
    ),
    Alert(
        "FeedmillReceiverBreakerOpen",
        "feedmill_receiver_breaker_state{{{pods}}} > 0",  # While one try is under way it is half-open: no better.
        "1m",
        "critical",
        "Receiver {{ $labels.pod }} cannot reach Redis: what it captures goes to its spill.",
    ),
    Alert(
        "FeedmillSpillInUse",
        "feedmill_receiver_spill_state{{{pods}}} == 1",
        "5m",
        "warning",
        "Receiver {{ $labels.pod }} has written to its spill for 5 minutes: Redis is away, full, or too slow.",
    ),
    Alert(
        "FeedmillSpillFilling",
        f"feedmill_receiver_spill_bytes{_PODS} / feedmill_receiver_spill_limit_bytes{_PODS} > 0.7"
        f" or feedmill_receiver_spill_state{_PODS} >= 2",
        "1m",
        "critical",
        "The spill of receiver {{ $labels.pod }} is nearly full, or its disk refuses: soon frames are shed.",
    ),
    Alert(
        "FeedmillTopicSilent",
        f"sum by (namespace, pod, channel) (feedmill_receiver_silent_topics{_PODS}) > 0",
        "10m",
        "warning",
        "Receiver {{ $labels.pod }} has no data of some {{ $labels.channel }} for far longer than is usual of them.",
    ),
    Alert(
        "FeedmillShedding",
        _rose("feedmill_receiver_shed_frames_total", 5),
        "0m",
        "critical",
        "Receiver {{ $labels.pod }} sheds frames: its spill and its memory are full.",
    ),
    Alert(
        "FeedmillMemoryNearBound",
        f"feedmill_receiver_buffered_bytes{_PODS} / feedmill_receiver_budget_bytes{_PODS} > 0.7",
        "1m",
        "warning",
        "Receiver {{ $labels.pod }} holds more than 70 % of what receiver.memory allows.",
    ),
    Alert(
        "FeedmillRedisNearlyFull",
        "feedmill_distributor_redis_memory_ratio{{{pods}}} > 0.8",
        "2m",
        "critical",
        "Redis, as distributor {{ $labels.pod }} sees it, uses more than 80 % of its maxmemory.",
    ),
    Alert(
        "FeedmillBackfillGivenUp",
        _rose("feedmill_distributor_given_up_trades_total", 15)
        + " or "
        + _rose("feedmill_processor_given_up_gaps_total", 15),
        "1m",
        "warning",
        "{{ $labels.pod }} gave up trades that the venue no longer offers: their gaps stay open.",
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
        + _rose("feedmill_processor_dead_letters_total", 15)
        + " or "
        + _rose("feedmill_account_dead_letters_total", 15),
        "1m",
        "warning",
        "{{ $labels.pod }} put frames or events aside that it could not handle.",
    ),
    Alert(
        "FeedmillBackupFailed",
        f"{_newest('backup_failed', ', kind', _NO_DRILL)} > 0",
        "1m",
        "warning",
        "The newest {{ $labels.kind }} backup of {{ $labels.feedmill_dev_pipeline }} failed.",
    ),
    Alert(
        "FeedmillBackupOverdue",
        f"{_newest('backup_overdue_seconds', ', kind', _NO_DRILL)} > 0",
        "60m",
        "critical",
        "The {{ $labels.kind }} backup of {{ $labels.feedmill_dev_pipeline }} that its schedule asks for is not there.",
    ),
    Alert(
        "FeedmillDrillFailed",
        f"{_newest('backup_failed', ', kind', _DRILL)} > 0",
        "1m",
        "critical",
        "The newest backup of {{ $labels.feedmill_dev_pipeline }} could not be restored when that was tried.",
    ),
    Alert(
        "FeedmillDrillOverdue",
        f"{_newest('backup_overdue_seconds', ', kind', _DRILL)} > 0",
        "60m",
        "warning",
        "The restore drill of {{ $labels.feedmill_dev_pipeline }} that its schedule asks for was not made.",
    ),
    Alert(
        "FeedmillBackupLogAbsent",
        f"absent({_up(names.BACKUP)} == 1)",
        "5m",
        "critical",
        "Nothing uploads the database's log of {{ $labels.feedmill_dev_pipeline }}: the server keeps it meanwhile.",
        Tells.BACKUP_LOG,
    ),
    Alert(
        "FeedmillBackupLogStopped",
        "feedmill_backup_wal_streaming{{{pods}}} == 0",
        "5m",
        "critical",
        "{{ $labels.pod }} does not receive the database's log: the server keeps it, or it is lost for restores.",
    ),
    Alert(
        "FeedmillBackupLogWaits",
        f"feedmill_backup_wal_spool_bytes{_PODS} / feedmill_backup_wal_spool_limit_bytes{_PODS} > 0.7",
        "5m",
        "warning",
        "More than 70 % of the room for the log that waits for its upload in {{ $labels.pod }} is used.",
    ),
    Alert(
        "FeedmillBackupStoreAway",
        "feedmill_backup_store_up{{{pods}}} == 0",
        "10m",
        "warning",
        "The destination of backups takes nothing from {{ $labels.pod }}.",
    ),
    Alert(
        "FeedmillNotifierAbsent",
        f"absent({_up(names.NOTIFY)} == 1)",
        "5m",
        "warning",
        "The notifier of {{ $labels.feedmill_dev_pipeline }} does not answer: people are told when it is back.",
        Tells.NOTIFIER,
    ),
    Alert(
        "FeedmillNotifyFailing",
        f"feedmill_notify_blocked{_PODS} > 0 or ({_sent('away')}) unless ignoring (outcome) ({_sent('sent')})",
        "5m",
        "warning",
        "{{ $labels.pod }} cannot send: the chat or its server refuses, or does not answer.",
    ),
    Alert(
        "FeedmillMaintenanceFailing",
        "max by (namespace, feedmill_dev_pipeline)"
        f" (changes(feedmill_database_maintained_timestamp_seconds{_PODS}[30m])) == 0",
        "30m",
        "warning",
        "Maintenance of the database of {{ $labels.feedmill_dev_pipeline }} has not succeeded for 30 minutes.",
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
        made.append(_rule(place, inputs))
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


def _rule(place: Place, inputs: PipelineInputs) -> Manifest:
    shards = [
        (feed.metadata.name, shard) for feed in inputs.feeds if not feed.spec.suspend for shard in working_shards(feed)
    ]
    rules = [rule(alert, place.namespace, place.pipeline, shards) for alert in ALERTS if _wanted(alert, inputs, shards)]
    spec = {"groups": [{"name": f"feedmill.{place.namespace}.{place.pipeline}", "rules": rules}]}
    return manifest(place, Head(API, "PrometheusRule", f"{place.pipeline}-feedmill"), COMPONENT, spec=spec)


def _wanted(alert: Alert, inputs: PipelineInputs, shards: Sequence[tuple[str, int]]) -> bool:
    if alert.tells is Tells.WORK:
        return True
    runs = not inputs.pipeline.spec.suspend
    if alert.tells is Tells.FEEDS:
        runs = bool(shards)
    if alert.tells is Tells.ACCOUNTS:
        runs = runs and accounts.wanted(inputs)
    if alert.tells is Tells.NOTIFIER:
        runs = runs and inputs.pipeline.spec.notifications is not None
    if alert.tells is Tells.BACKUP_LOG:
        runs = runs and _uploads_log(inputs)
    return runs and scraped(inputs)


def _uploads_log(inputs: PipelineInputs) -> bool:
    spec = inputs.pipeline.spec.backup
    return spec is not None and spec.continuous.enabled and not spec.suspend and not backup.homeless(spec)


def rule(alert: Alert, namespace: str, pipeline: str, shards: Sequence[tuple[str, int]]) -> dict[str, object]:
    """As Prometheus reads it, for the pods of one pipeline. ``shards``: feed and number of each that is to run."""
    pods = f'namespace="{namespace}", feedmill_dev_pipeline="{pipeline}"'
    podless = " or ".join(_PODLESS.format(pods=pods, feed=feed, shard=shard) for feed, shard in shards)
    return {
        "alert": alert.name,
        "expr": alert.expression.format(pods=pods, podless=podless),
        "for": alert.lasts,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "runbook": f"docs/runbooks/{alert.name}.md"},
    }

"""``FeedPipeline``: what feeds share: Redis, PostgreSQL, the processor, retention, backup."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from feedmill.resources.account_pool import AccountPool
from feedmill.resources.backup_policy import Backup
from feedmill.resources.base import NAME_RULE, Boolean, Hint, Integer, Label, Model, ObjectMeta, Rule
from feedmill.resources.common import (
    CircuitBreaker,
    PodTemplate,
    Replicas,
    ResourceRequirements,
    SecretKeyRef,
    Tls,
)
from feedmill.resources.notifications import Notifications
from feedmill.resources.status import PipelineStatus
from feedmill.resources.types import KeepFor, LogLevel, Quantity, Switch

Interval = Literal["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"]

_SERVER_RULES = (
    Rule(
        "has(self.urlSecretRef) != has(self.managed)",
        "give exactly one of urlSecretRef (a server of your own) and managed (write managed: {} for one made for you)",
    ),
    Rule(
        "!has(self.tls) || has(self.urlSecretRef)",
        "tls is only for a server of your own (urlSecretRef): remove it",
        ".tls",
    ),
)
_NO_SHRINK = Rule(
    "quantity(self.storage).compareTo(quantity(oldSelf.storage)) >= 0",
    "a volume cannot shrink: keep storage or make it larger",
    ".storage",
    True,
)


class ManagedRedis(Model):
    """A single Redis made and run for this pipeline. `{}` takes the defaults."""

    rules: ClassVar[tuple[Rule, ...]] = (_NO_SHRINK,)

    storage: Quantity = Quantity("2Gi")
    """Size of its volume."""
    memory: Quantity = Quantity("1Gi")
    """Its maxmemory; the container may take half as much again."""


class ManagedPostgres(Model):
    """A single PostgreSQL made and run for this pipeline. `{}` takes the defaults."""

    rules: ClassVar[tuple[Rule, ...]] = (_NO_SHRINK,)

    storage: Quantity = Quantity("20Gi")
    """Size of its volume."""


class Confirm(Model):
    """What a receiver waits for before it lets go of what it appended: Redis' own disk, always, and its replicas'."""

    replicas: Annotated[Integer, Field(ge=0, le=8)] = 0
    """Replicas that must have it on their disks too (`WAITAOF`; they need `appendonly yes`). While fewer are connected,
    it is held in memory and in the spill; where that is nearly full Redis' own disk is enough."""


class Redis(Model):
    """Redis 7.2 or newer, or Valkey."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *_SERVER_RULES,
        Rule(
            "!has(self.managed) || !has(self.confirm) || self.confirm.replicas == 0",
            "a managed Redis has no replicas that could confirm: remove confirm, or give a server of your own "
            "(urlSecretRef)",
            ".confirm",
        ),
    )

    url_secret_ref: SecretKeyRef | None = None
    """Secret with the URL of a Redis of your own (`redis://`, `rediss://`)."""
    managed: ManagedRedis | None = None
    """A Redis made and run for this pipeline."""
    tls: Tls | None = None
    """How the server's certificate is checked."""
    circuit_breaker: CircuitBreaker = Field(default_factory=CircuitBreaker)
    """When to stop asking a server that does not answer."""
    confirm: Confirm = Field(default_factory=Confirm)
    """When what was appended counts as safe."""


class Postgres(Model):
    """PostgreSQL 15 or newer."""

    rules: ClassVar[tuple[Rule, ...]] = _SERVER_RULES

    url_secret_ref: SecretKeyRef | None = None
    """Secret with the URL of a PostgreSQL of your own (`postgresql://`)."""
    managed: ManagedPostgres | None = None
    """A PostgreSQL made and run for this pipeline."""
    tls: Tls | None = None
    """How the server's certificate is checked."""
    circuit_breaker: CircuitBreaker = Field(default_factory=CircuitBreaker)
    """When to stop asking a server that does not answer."""


class Processor(Model):
    """The processes that write to PostgreSQL."""

    replicas: Replicas = 1
    """Processes; the shards of all feeds are spread over them."""
    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
    """CPU and memory of the container."""
    pod_template: PodTemplate | None = None
    """Additions to the pods."""


class Api(Model):
    """The HTTP API."""

    replicas: Annotated[Integer, Field(ge=0, le=16)] = 1
    """Processes; 0 = no API."""


def _default_intervals() -> list[Interval]:
    return ["1m", "5m", "15m", "1h", "4h", "1d"]


class Candles(Model):
    """Candles computed from the stored trades."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "'1m' in self.intervals", "1m must be among the intervals: the others are rolled up from it", ".intervals"
        ),
    )

    intervals: Annotated[
        list[Interval], Field(min_length=1, max_length=12, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = Field(default_factory=_default_intervals)
    """Lengths of candles: 1m is kept as trades are stored, the others are rolled up from it."""


class Retention(Model):
    """How long rows are kept. Market data is dropped in partitions of a day, so some stays up to a day longer."""

    trades: KeepFor = KeepFor("30d")
    """Trades."""
    tickers: KeepFor = KeepFor("3d")
    """Best bid and ask."""
    book_snapshots: KeepFor = KeepFor("7d")
    """Snapshots of order books."""
    dead_letters: KeepFor = KeepFor("90d")
    """Frames and events that could not be handled (`feedmill dlq`)."""
    audit: KeepFor = KeepFor("365d")
    """Who used which account's secrets. Never less than 30 days."""


class Tracing(Model):
    """OpenTelemetry traces."""

    otlp_endpoint: Annotated[
        str,
        Field(pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$", max_length=512),
        Hint("write http:// or https:// and a host, without credentials, such as http://otel-collector:4318"),
    ]
    """Where to send them (OTLP over http), without the path of traces."""
    sampling_percent: Annotated[Integer, Field(ge=0, le=100)] = 1
    """Share of batches traced, at most 100 a second of each process; what is asked of a venue to fill a gap or to make
    a book is traced each time, unless this is 0."""


class Monitoring(Model):
    """Objects for the monitoring stack of the cluster, which local mode makes none of, and traces."""

    pod_monitor: Switch = Switch.AUTO
    """PodMonitor objects for the Prometheus operator."""
    prometheus_rule: Switch = Switch.AUTO
    """PrometheusRule objects (alerts)."""
    tracing: Tracing | None = None
    """OpenTelemetry traces of batches, from the receiver to the rows; in local mode too. Changed without a restart."""


class PipelineSpec(Model):
    """What is wanted of a pipeline."""

    redis: Redis
    """Where the streams are."""
    postgres: Postgres
    """Where the data is stored."""
    image: (
        Annotated[
            str,
            Field(pattern=r"^[^\s@]+(@sha256:[0-9a-f]{64})?$", max_length=512),
            Hint("write repository:tag or repository@sha256:..., without spaces"),
        ]
        | None
    ) = None
    """Image of the services. Default: that of the operator at the time the pipeline was made. Never changed by an
    upgrade of the operator."""
    processor: Processor = Field(default_factory=Processor)
    """The processes that write to PostgreSQL."""
    accounts: AccountPool | None = None
    """The processes that listen to accounts. There are some, with the defaults, also where this is left out and an
    ExchangeAccount names the pipeline."""
    api: Api = Field(default_factory=Api)
    """The HTTP API. This version has none."""
    egress: Label = "default"
    """Name of the outgoing address: feeds with the same one share the venues' limits."""
    candles: Candles = Field(default_factory=Candles)
    """Candles computed from the stored trades."""
    retention: Retention = Field(default_factory=Retention)
    """How long rows are kept."""
    backup: Backup | None = None
    """Backups of PostgreSQL on a schedule. Without it there are none."""
    notifications: Notifications | None = None
    """Who is told when something is wrong. Without it nobody is."""
    monitoring: Monitoring = Field(default_factory=Monitoring)
    """Objects for the monitoring stack of the cluster."""
    log_level: LogLevel = LogLevel.INFO
    """Least weight of the log lines of the pipeline's processes. Changed without a restart."""
    suspend: Boolean = False
    """True stops the pipeline's processes, not those of its feeds; the servers made for it stay."""


class FeedPipeline(Model):
    """What feeds share: Redis, PostgreSQL and what is done with the data."""

    rules: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    api_version: Literal["feedmill.dev/v1alpha1"] = "feedmill.dev/v1alpha1"
    """Always `feedmill.dev/v1alpha1`."""
    kind: Literal["FeedPipeline"] = "FeedPipeline"
    """Always `FeedPipeline`."""
    metadata: ObjectMeta
    """Name and labels."""
    spec: PipelineSpec
    """What is wanted."""
    status: PipelineStatus | None = None
    """Written by the operator."""

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.metadata.namespace, self.metadata.name

    @property
    def account_pool(self) -> AccountPool:
        """``spec.accounts``, or the defaults."""
        return self.spec.accounts or AccountPool()


def default_pipeline(namespace: str, name: str) -> FeedPipeline:
    """What local mode uses when the files name no pipeline at all: managed Redis and PostgreSQL."""
    return FeedPipeline(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=PipelineSpec(redis=Redis(managed=ManagedRedis()), postgres=Postgres(managed=ManagedPostgres())),
    )

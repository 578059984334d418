"""What the operator writes into ``status``. Live numbers are coarse and seldom written; exact ones are metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from feedmill.resources.base import Integer, Model

Count = Annotated[Integer, Field(ge=0, le=1_000_000)]
Moment = Annotated[str, Field(max_length=40)]
"""A time in UTC, as Kubernetes writes it."""


class Condition(Model):
    """One thing that holds or does not, since when and why."""

    type: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]{0,62}$")]
    """What: Ready, Accepted, Progressing, ..."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds. Unknown = nobody could say, never the same as False."""
    observed_generation: Count | None = None
    """Generation of the spec it was judged by."""
    last_transition_time: Annotated[str, Field(max_length=40)] | None = None
    """When `status` last changed (UTC)."""
    reason: Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=128)]
    """One word for programs; docs/conditions.md explains each."""
    message: Annotated[str, Field(max_length=2048)] = ""
    """A sentence for people: what is wrong and what to do."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=32,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class Pods(Model):
    """Pods of one role."""

    replicas: Count = 0
    """Wanted."""
    updated: Count = 0
    """Of the newest image and template."""
    ready: Count = 0
    """Able to work."""


class ConfigStatus(Model):
    """Which configuration the pods work with."""

    hash: Annotated[str, Field(max_length=64)] = ""
    """Of the configuration they should have."""
    pods: Count = 0
    """Pods that take it."""
    acknowledged: Count = 0
    """Pods that say they work with it."""


class FeedStatus(Model):
    """What the operator saw of a feed."""

    observed_generation: Count | None = None
    """Generation of the spec that was last worked on."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, Accepted, Progressing, ReceiverAvailable, DistributorAvailable, RedisReachable, DataFresh, Suspended,
    Paused."""
    data: Annotated[str, Field(max_length=64)] | None = None
    """Whether data flows, in a word: Fresh, Partial (of some connections or topics only), Stale, Unknown, Suspended."""
    lag: Annotated[str, Field(max_length=16)] | None = None
    """How far the distributors are behind the receivers, as a bucket (`<1s`, `<10s`, `<1m`, `<10m`, `>=10m`)."""
    image: Annotated[str, Field(max_length=512)] | None = None
    """Image the processes run."""
    instruments: Count | None = None
    """Instruments the feed asks for."""
    rejected: Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=20)] = Field(default_factory=list)
    """Topics the venue refused (the first 20)."""
    receiver: Pods | None = None
    """Pods of the receivers."""
    distributor: Pods | None = None
    """Pods of the distributors."""
    config: ConfigStatus | None = None
    """Which configuration they work with."""


class ProcessorStatus(Model):
    """Pods of the processors, as the scale subresource reads them."""

    replicas: Count = 0
    """There are."""
    updated: Count = 0
    """Of the newest image and template."""
    ready: Count = 0
    """Able to work."""
    selector: Annotated[str, Field(max_length=512)] = ""
    """Label selector of the pods, for autoscalers."""


class AccountsStatus(Model):
    """The account receivers, and what they say of their accounts."""

    replicas: Count = 0
    """Pods wanted."""
    updated: Count = 0
    """Of the newest image and template."""
    ready: Count = 0
    """Able to work."""
    enabled: Count | None = None
    """Accounts to be listened to, those of the credential store included."""
    listening: Count | None = None
    """Of these, the ones listened to."""
    refused: Count | None = None
    """Of these, the ones whose key or secrets are refused."""


class BackupSummary(Model):
    """What the operator knows of a pipeline's backups."""

    last_success: Moment | None = None
    """When the newest good backup was made (UTC)."""
    last_verified: Moment | None = None
    """When the newest good drill ended (UTC)."""
    continuous_to: Moment | None = None
    """With continuous backups: the moment up to which the log is at the destination (UTC); coarse."""


class PipelineStatus(Model):
    """What the operator saw of a pipeline."""

    observed_generation: Count | None = None
    """Generation of the spec that was last worked on."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, Accepted, Progressing, ProcessorAvailable, AccountsAvailable (where there are account receivers),
    RedisReachable, PostgresReachable, BackupHealthy, Suspended, Paused."""
    image: Annotated[str, Field(max_length=512)] | None = None
    """Image of the services: `spec.image`, else what was pinned when the pipeline was made. An upgrade of the operator
    does not change it."""
    migration: Annotated[str, Field(max_length=63)] | None = None
    """The last migration of the database's schema that succeeded."""
    feeds: Count | None = None
    """Accepted feeds that use it."""
    lag: Annotated[str, Field(max_length=16)] | None = None
    """How far the processors are behind the distributors, as a bucket."""
    processor: ProcessorStatus | None = None
    """Pods of the processors."""
    accounts: AccountsStatus | None = None
    """The account receivers, where there are any."""
    backup: BackupSummary | None = None
    """The newest backup and drill, where backups are asked for."""
    config: ConfigStatus | None = None
    """Which configuration they work with."""


class AccountStatus(Model):
    """What the operator saw of an account."""

    observed_generation: Count | None = None
    """Generation of the spec that was last worked on."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, Accepted, Listening, KeySound, Suspended."""
    state: Annotated[str, Field(max_length=64)] | None = None
    """In a word: Listening, Reconciling, Connecting, Refused, Suspended, Stopped (no account receiver works),
    Unknown."""
    last_fill: Annotated[str, Field(max_length=40)] | None = None
    """Time of the newest fill that was stored (UTC); coarse."""

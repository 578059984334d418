"""Every condition and every reason the operator writes. docs/conditions.md explains each; a test compares the two."""

from __future__ import annotations

from enum import StrEnum


class Type(StrEnum):
    """Types of conditions."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    PROGRESSING = "Progressing"
    RECEIVER_AVAILABLE = "ReceiverAvailable"
    DISTRIBUTOR_AVAILABLE = "DistributorAvailable"
    PROCESSOR_AVAILABLE = "ProcessorAvailable"
    ACCOUNTS_AVAILABLE = "AccountsAvailable"
    NOTIFIER_AVAILABLE = "NotifierAvailable"
    REDIS_REACHABLE = "RedisReachable"
    POSTGRES_REACHABLE = "PostgresReachable"
    DATA_FRESH = "DataFresh"
    LISTENING = "Listening"
    KEY_SOUND = "KeySound"
    BACKUP_HEALTHY = "BackupHealthy"
    COMPLETE = "Complete"
    SUSPENDED = "Suspended"
    PAUSED = "Paused"


class Reason(StrEnum):
    """Reasons of conditions: stable words for programs."""

    # The object itself.
    VALID = "Valid"
    SPEC_INVALID = "SpecInvalid"
    EXCHANGE_UNKNOWN = "ExchangeUnknown"
    INSTRUMENT_INVALID = "InstrumentInvalid"
    CHANNEL_UNSUPPORTED = "ChannelUnsupported"
    PIPELINE_NOT_FOUND = "PipelineNotFound"
    PIPELINE_NOT_ACCEPTED = "PipelineNotAccepted"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105 - a reason
    SECRET_INVALID = "SecretInvalid"  # noqa: S105 - a reason
    NAME_TAKEN = "NameTaken"

    # Carrying it out.
    RECONCILED = "Reconciled"
    RECONCILE_FAILED = "ReconcileFailed"
    OBJECT_REFUSED = "ObjectRefused"
    ROLLING_OUT = "RollingOut"
    ROLLOUT_STALLED = "RolloutStalled"
    CONFIG_PENDING = "ConfigPending"
    CONFIG_REJECTED = "ConfigRejected"
    MIGRATING = "Migrating"
    MIGRATION_FAILED = "MigrationFailed"
    NOT_ACCEPTED = "NotAccepted"

    # Pods.
    AVAILABLE = "Available"
    STARTING = "Starting"
    NOT_READY = "NotReady"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOPING = "CrashLooping"
    OUT_OF_MEMORY = "OutOfMemory"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    UNSCHEDULABLE = "Unschedulable"
    VOLUME_PENDING = "VolumePending"
    QUOTA_EXCEEDED = "QuotaExceeded"
    PODS_REFUSED = "PodsRefused"
    EVICTED = "Evicted"

    # What the processes say.
    ALL_AVAILABLE = "AllAvailable"
    REACHABLE = "Reachable"
    UNREACHABLE = "Unreachable"
    BREAKER_OPEN = "BreakerOpen"
    SERVER_NOT_READY = "ServerNotReady"
    NOBODY_ANSWERED = "NobodyAnswered"
    FRESH = "Fresh"
    STALE = "Stale"
    EXCHANGE_UNREACHABLE = "ExchangeUnreachable"
    TOPICS_REJECTED = "TopicsRejected"

    # What account receivers say of an account.
    LISTENING = "Listening"
    RECONCILING = "Reconciling"
    CONNECTING = "Connecting"
    SECRET_PENDING = "SecretPending"  # noqa: S105 - a reason
    REFUSED_BY_VENUE = "RefusedByVenue"
    MAY_WITHDRAW = "MayWithdraw"
    CONNECTION_LIMIT = "ConnectionLimit"
    NOTHING_FOUND = "NothingFound"
    KEY_WARNING = "KeyWarning"

    # Runs: backups, drills, restores.
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    RUN_FAILED = "RunFailed"
    JOB_GONE = "JobGone"
    BACKUP_NOT_CONFIGURED = "BackupNotConfigured"
    FOLDER_WITHOUT_CLAIM = "FolderWithoutClaim"
    PIPELINE_AT_WORK = "PipelineAtWork"

    # Backups of a pipeline, all together.
    BACKED_UP = "BackedUp"
    NEVER_BACKED_UP = "NeverBackedUp"
    BACKUP_FAILED = "BackupFailed"
    BACKUP_STALE = "BackupStale"
    DRILL_FAILED = "DrillFailed"
    PRUNE_FAILED = "PruneFailed"
    REPLICATION_REFUSED = "ReplicationRefused"
    LOG_NOT_UPLOADED = "LogNotUploaded"

    # Wanted states.
    SUSPENDED = "Suspended"
    NOT_SUSPENDED = "NotSuspended"
    PAUSED = "Paused"
    NOT_PAUSED = "NotPaused"
    NOT_CONFIGURED = "NotConfigured"


WARN = frozenset(
    {
        Reason.SPEC_INVALID,
        Reason.EXCHANGE_UNKNOWN,
        Reason.INSTRUMENT_INVALID,
        Reason.CHANNEL_UNSUPPORTED,
        Reason.PIPELINE_NOT_FOUND,
        Reason.PIPELINE_NOT_ACCEPTED,
        Reason.SECRET_NOT_FOUND,
        Reason.SECRET_KEY_MISSING,
        Reason.SECRET_INVALID,
        Reason.NAME_TAKEN,
        Reason.REFUSED_BY_VENUE,
        Reason.MAY_WITHDRAW,
        Reason.CONNECTION_LIMIT,
        Reason.KEY_WARNING,
        Reason.OBJECT_REFUSED,
        Reason.RECONCILE_FAILED,
        Reason.ROLLOUT_STALLED,
        Reason.CONFIG_REJECTED,
        Reason.MIGRATION_FAILED,
        Reason.IMAGE_PULL_FAILED,
        Reason.CRASH_LOOPING,
        Reason.OUT_OF_MEMORY,
        Reason.CONTAINER_CONFIG_ERROR,
        Reason.UNSCHEDULABLE,
        Reason.VOLUME_PENDING,
        Reason.QUOTA_EXCEEDED,
        Reason.PODS_REFUSED,
        Reason.EVICTED,
        Reason.UNREACHABLE,
        Reason.SERVER_NOT_READY,
        Reason.EXCHANGE_UNREACHABLE,
        Reason.TOPICS_REJECTED,
        Reason.RUN_FAILED,
        Reason.JOB_GONE,
        Reason.BACKUP_NOT_CONFIGURED,
        Reason.FOLDER_WITHOUT_CLAIM,
        Reason.PIPELINE_AT_WORK,
        Reason.NEVER_BACKED_UP,
        Reason.BACKUP_FAILED,
        Reason.BACKUP_STALE,
        Reason.DRILL_FAILED,
        Reason.PRUNE_FAILED,
        Reason.REPLICATION_REFUSED,
        Reason.LOG_NOT_UPLOADED,
    }
)
"""Reasons that are told by an Event of type Warning too."""

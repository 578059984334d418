"""``FeedBackup`` and ``FeedRestore``: one run each."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from feedmill.resources.backup_status import BackupRunStatus, RestoreRunStatus
from feedmill.resources.base import RUN_NAME_RULE, Hint, Model, ObjectMeta, Rule
from feedmill.resources.common import PipelineRef
from feedmill.resources.types import BackupKind, RestoreMode

BackupId = Annotated[
    str,
    Field(pattern=r"^[0-9]{8}T[0-9]{6}Z-(logical|base)-[0-9a-f]{6}$"),
    Hint("write it as `feedmill backup list` or a FeedBackup's status.backupId does"),
]


class BackupRunSpec(Model):
    """What is to be backed up."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self == oldSelf", "a backup is one run and immutable: make a new FeedBackup", "", True),
    )

    pipeline_ref: PipelineRef
    """The FeedPipeline whose database is backed up, with its destination and encryption."""
    kind: BackupKind = BackupKind.LOGICAL
    """`Logical`: all tables as of one moment; `Base`: the server's files, to which the log of continuous backups is
    added."""


class FeedBackup(Model):
    """One backup of a pipeline's database. Those of the schedule are made by the operator."""

    rules: ClassVar[tuple[Rule, ...]] = (RUN_NAME_RULE,)

    api_version: Literal["feedmill.dev/v1alpha1"] = "feedmill.dev/v1alpha1"
    """Always `feedmill.dev/v1alpha1`."""
    kind: Literal["FeedBackup"] = "FeedBackup"
    """Always `FeedBackup`."""
    metadata: ObjectMeta
    """Name and labels."""
    spec: BackupRunSpec
    """What is to be backed up."""
    status: BackupRunStatus | None = None
    """Written by the operator."""

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.metadata.namespace, self.metadata.name


class RestoreSpec(Model):
    """What is to be restored, and how far."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self == oldSelf", "a restore is one run and immutable: make a new FeedRestore", "", True),
        Rule(
            "!has(self.toTime) || !has(self.backupId)",
            "give toTime or backupId, not both: the backup that a moment needs is found by the log",
            ".toTime",
        ),
    )

    pipeline_ref: PipelineRef
    """The FeedPipeline whose backups are read."""
    mode: RestoreMode = RestoreMode.VERIFY
    """`Verify`: a drill in a scratch server; `Restore`: into the pipeline's own database, which must be empty, while
    the pipeline is suspended."""
    backup_id: BackupId | None = None
    """The backup to take. Default: as far as there is anything."""
    to_time: (
        Annotated[
            str,
            Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"),
            Hint("write a time in UTC, such as 2026-11-25T03:00:00Z"),
        ]
        | None
    ) = None
    """The moment to restore to (UTC); needs continuous backups. Default: as far as there is anything."""


class FeedRestore(Model):
    """One restore, or a drill of one. The drills of the schedule are made by the operator."""

    rules: ClassVar[tuple[Rule, ...]] = (RUN_NAME_RULE,)

    api_version: Literal["feedmill.dev/v1alpha1"] = "feedmill.dev/v1alpha1"
    """Always `feedmill.dev/v1alpha1`."""
    kind: Literal["FeedRestore"] = "FeedRestore"
    """Always `FeedRestore`."""
    metadata: ObjectMeta
    """Name and labels."""
    spec: RestoreSpec
    """What is to be restored."""
    status: RestoreRunStatus | None = None
    """Written by the operator."""

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.metadata.namespace, self.metadata.name

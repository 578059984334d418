"""``FeedBackup`` and ``FeedRestore``: one run each. Schemas only, so far."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from feedmill.resources.base import NAME_RULE, Hint, Model, ObjectMeta, Rule
from feedmill.resources.common import PipelineRef
from feedmill.resources.status import AcceptedStatus


class BackupRunSpec(Model):
    """What is to be backed up."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self == oldSelf", "a backup is one run and immutable: make a new FeedBackup", "", True),
    )

    pipeline_ref: PipelineRef
    """The FeedPipeline whose database is backed up, with its destination and encryption."""


class FeedBackup(Model):
    """One backup of a pipeline's database. Not carried out by this version yet."""

    rules: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    api_version: Literal["feedmill.dev/v1alpha1"] = "feedmill.dev/v1alpha1"
    """Always `feedmill.dev/v1alpha1`."""
    kind: Literal["FeedBackup"] = "FeedBackup"
    """Always `FeedBackup`."""
    metadata: ObjectMeta
    """Name and labels."""
    spec: BackupRunSpec
    """What is to be backed up."""
    status: AcceptedStatus | None = None
    """Written by the operator."""


class RestoreSpec(Model):
    """What is to be restored, and how far."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self == oldSelf", "a restore is one run and immutable: make a new FeedRestore", "", True),
        Rule(
            "self.mode == 'Restore' || !has(self.toTime)",
            "toTime is only for mode Restore: remove it",
            ".toTime",
        ),
    )

    pipeline_ref: PipelineRef
    """The FeedPipeline whose backups are read."""
    mode: Literal["Verify", "Restore"] = "Verify"
    """`Verify`: a drill in a scratch database; `Restore`: into the pipeline's own, which must be empty."""
    backup_name: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9][-._/A-Za-z0-9]*$")] | None = None
    """The backup to take. Default: the newest good one."""
    to_time: (
        Annotated[
            str,
            Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"),
            Hint("write a time in UTC, such as 2026-11-25T03:00:00Z"),
        ]
        | None
    ) = None
    """The time to restore to (UTC). Default: as far as the backup reaches."""


class FeedRestore(Model):
    """One restore, or a drill of one. Not carried out by this version yet."""

    rules: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    api_version: Literal["feedmill.dev/v1alpha1"] = "feedmill.dev/v1alpha1"
    """Always `feedmill.dev/v1alpha1`."""
    kind: Literal["FeedRestore"] = "FeedRestore"
    """Always `FeedRestore`."""
    metadata: ObjectMeta
    """Name and labels."""
    spec: RestoreSpec
    """What is to be restored."""
    status: AcceptedStatus | None = None
    """Written by the operator."""

"""What the operator writes into ``status`` of FeedBackup and FeedRestore: what the run's Job said of itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from feedmill.resources.base import Integer, Model
from feedmill.resources.status import Conditions, Count, Moment

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
Large = Annotated[Integer, Field(ge=0, le=2**53 - 1)]
Percent = Annotated[Integer, Field(ge=0, le=100)]


class RunStatus(Model):
    """What both kinds of runs have in common."""

    observed_generation: Count | None = None
    """Generation of the spec that was last worked on."""
    conditions: Conditions = Field(default_factory=list)
    """Accepted, and Complete: True once it succeeded, False with the reason once it failed."""
    phase: Phase | None = None
    """Pending, Running, Succeeded or Failed."""
    job: Annotated[str, Field(max_length=63)] | None = None
    """The Job that carries it out."""
    started_at: Moment | None = None
    """When it began (UTC)."""
    completed_at: Moment | None = None
    """When it ended (UTC)."""
    backup_id: Annotated[str, Field(max_length=64)] | None = None
    """The backup, as `feedmill backup list` names it."""
    progress: Percent | None = None
    """Percent done, as far as that can be told; coarse."""
    rows: Large | None = None
    """Rows in all tables."""
    message: Annotated[str, Field(max_length=2048)] | None = None
    """What it did, or why it failed, in a sentence."""


class BackupRunStatus(RunStatus):
    """What became of a backup."""

    destination: Annotated[str, Field(max_length=1024)] | None = None
    """Where it was stored."""
    object: Annotated[str, Field(max_length=1024)] | None = None
    """Name of the object there."""
    size_bytes: Large | None = None
    """Size of the sealed object."""
    size: Annotated[str, Field(max_length=16)] | None = None
    """The same, for people (`1.2Gi`)."""
    sha256: Annotated[str, Field(max_length=64)] | None = None
    """Of the sealed object."""
    content_at: Moment | None = None
    """The moment its content is of (UTC)."""
    key_id: Annotated[str, Field(max_length=64)] | None = None
    """Which key opens it."""
    schema_version: Annotated[str, Field(max_length=64)] | None = None
    """The database's migration it was made with."""


class RestoreRunStatus(RunStatus):
    """What became of a restore or of a drill."""

    restored_to: Moment | None = None
    """The moment up to which the database was restored (UTC)."""
    tables: Count | None = None
    """Tables that were compared."""
    gaps: Count | None = None
    """Gap rows that were opened for the time since then."""

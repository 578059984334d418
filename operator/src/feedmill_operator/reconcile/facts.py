"""What was seen, as the conditions need it: everything looked up, nothing judged. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from feedmill.resources.backup_policy import Backup
from feedmill_operator.reconcile.account_said import AccountSaid
from feedmill_operator.reconcile.answer import Answer
from feedmill_operator.reconcile.conditions import Finding
from feedmill_operator.reconcile.log_said import LogSaid
from feedmill_operator.reconcile.pods import PodFacts
from feedmill_operator.reconcile.run_said import RunSaid
from feedmill_operator.reconcile.troubles import Trouble
from feedmill_operator.reconcile.validity import Refusal


@dataclass(frozen=True, slots=True)
class Rollout:
    """A Deployment or StatefulSet that should be there, and how far its controller is."""

    name: str
    namespace: str = ""
    shard: int | None = None
    wanted: int = 1
    """Pods."""
    exists: bool = False
    current: bool = False
    """Its controller has seen the newest template and number."""
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    complete: bool = False
    """All pods of the newest template were able to work at one time; losing one later does not undo that."""
    refused: str = ""
    """Why its controller cannot make pods (quota, Pod Security); empty = it can."""
    stalled: str = ""
    """Its controller has given up waiting for progress."""


@dataclass(frozen=True, slots=True)
class Role:
    """All processes of one kind that belong to one custom resource."""

    rollouts: Sequence[Rollout] = ()
    pods: Sequence[PodFacts] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """Pod -> what it last said, where that is not too long ago."""
    config_hash: str = ""
    """Of the configuration its pods should work with, where that is one of its own."""


@dataclass(frozen=True, slots=True)
class Common:
    """What both kinds have."""

    generation: int
    before: Mapping[str, Any]
    """The status as it stands."""
    refusal: Refusal | None = None
    suspended: bool = False
    paused: bool = False
    problems: Sequence[Trouble] = ()
    """Objects the API server refuses: somebody has to change something."""
    failure: str = ""
    """What else kept the reconcile from being finished; it is tried again."""
    image: str = ""
    config_hash: str = ""
    """Of the configuration the pods should work with."""


@dataclass(frozen=True, slots=True)
class FeedFacts(Common):
    """Of an ExchangeFeed."""

    instruments: int | None = None
    receiver: Role = Role()
    distributor: Role = Role()


@dataclass(frozen=True, slots=True)
class Migration:
    """The migration of the database that the wanted image needs."""

    name: str = ""
    """Of the Job."""
    done: bool = True
    failed: str = ""
    """Its last words; empty = it did not fail."""
    trouble: Trouble | None = None
    """Why its pod does not run."""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A Job, as far as its controller and its pods are."""

    name: str
    started: str = ""
    """RFC 3339, as all times here."""
    ended: str = ""
    succeeded: bool = False
    failed: str = ""
    """Why it failed, in Kubernetes' words; empty = it did not."""
    running: bool = False
    """A pod of it runs."""
    unread: bool = False
    """It ended, and what its pod said last is still to be told by the watch."""
    said: RunSaid | None = None
    """What its newest pod said of itself."""
    last_words: str = ""
    """Of that pod, where it said nothing of the kind."""
    trouble: Trouble | None = None
    """Why its pod does not run."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Of a FeedBackup or FeedRestore."""

    generation: int
    before: Mapping[str, Any]
    """The status as it stands."""
    refusal: Refusal | None = None
    """Why its Job is not made."""
    problem: Trouble | None = None
    """Why the API server refuses it."""
    job: JobFacts | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A FeedBackup or FeedRestore, as its pipeline needs it."""

    name: str
    phase: str = ""
    started: str = ""
    ended: str = ""
    content: str = ""
    """The moment a backup is of."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """Of all backups of a pipeline."""

    backup: Backup
    refusal: Refusal | None = None
    """Why none can be made."""
    since: str = ""
    """When the schedule was made; empty = it is not there yet."""
    suspended: bool = False
    backups: Sequence[RunRecord] = ()
    drills: Sequence[RunRecord] = ()
    """Both in the order in which they were made."""
    prune: JobFacts | None = None
    """The newest Job that deleted old ones, once it has ended."""
    log: LogSaid | None = None
    """What the process says that uploads the log; None = nothing."""
    log_trouble: Trouble | None = None
    """Why that process does not run."""


@dataclass(frozen=True, slots=True)
class PipelineFacts(Common):
    """Of a FeedPipeline."""

    processor: Role = Role()
    accounts: Role | None = None
    """The account receivers; None = the pipeline listens to no accounts."""
    selector: str = ""
    redis: Role | None = None
    """The managed server; None = the user's own."""
    postgres: Role | None = None
    migration: Migration = Migration()
    migrated: str = ""
    """Job of the last migration that succeeded."""
    feeds: int | None = None
    notifier: Role | None = None
    """What sends notifications; None = nobody is to be told."""
    backups: BackupFacts | None = None
    """None = none are configured."""
    unreadable: bool = False
    """Some are, but the spec cannot be read."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """The account receivers of a pipeline, as its ExchangeAccounts need it."""

    trouble: Finding | None = None
    """Why nobody listens to any account."""
    said: Mapping[str, AccountSaid] = field(default_factory=dict)
    """By ``namespace/name``."""
    generations: Mapping[str, int] = field(default_factory=dict)
    """Of the accounts that the newest configuration was made of."""
    awaited: bool = False
    """Some of them may just not have been asked yet."""

    def of(self, name: str, generation: int) -> AccountSaid | None:
        """What is said of an account whose spec is of this generation by now."""
        found = self.said.get(name)
        if found is None or self.generations.get(name) == generation:
            return found
        return replace(found, current=False)


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """Of an ExchangeAccount."""

    generation: int
    before: Mapping[str, Any]
    """The status as it stands."""
    refusal: Refusal | None = None
    suspended: bool = False
    trouble: Finding | None = None
    """Why nobody listens to any account of its pipeline."""
    said: AccountSaid | None = None
    awaited: bool = False
    """That nothing is said may be because nobody was asked yet."""

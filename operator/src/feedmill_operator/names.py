"""Every label, annotation and name the operator gives. Change one here and docs/labels.md with it."""

from __future__ import annotations

import hashlib
from enum import StrEnum

GROUP, VERSION = "feedmill.dev", "v1alpha1"
FIELD_MANAGER = "feedmill-operator"

# Labels of every object the operator makes.
NAME, INSTANCE, COMPONENT, PART_OF, MANAGED_BY = (
    f"app.kubernetes.io/{word}" for word in ("name", "instance", "component", "part-of", "managed-by")
)
MANAGER = "feedmill-operator"
"""Value of MANAGED_BY: what the operator watches, owns and prunes."""
PIPELINE = f"{GROUP}/pipeline"
"""Name of the FeedPipeline an object belongs to."""
FEED = f"{GROUP}/feed"
"""Name of the ExchangeFeed an object belongs to; absent on a pipeline's objects."""
SHARD = f"{GROUP}/shard"
RUN = f"{GROUP}/run"
"""On Jobs and pods that make, drill, restore or delete backups: which of these (see :class:`Run`)."""
RUN_OF = f"{GROUP}/run-of"
"""On those of a FeedBackup or FeedRestore that somebody made: its name. Those of a schedule have none: the object has
the Job's own."""
SCHEDULED = f"{GROUP}/scheduled"
""""true" on a FeedBackup or FeedRestore that the operator made of a schedule's Job."""
WATCH = f"{GROUP}/watch"
"""Set to "true" by the user on a Secret of his own: its change is noticed at once, not at the next resync. Also on
every Secret the operator makes: the one label by which Secrets are watched (no others are ever seen)."""

# Annotations on the user's objects.
PAUSE = f"{GROUP}/pause"
""""true": the operator observes and reports, and changes nothing."""
RESTART = f"{GROUP}/restart"
"""Any new value rolls the pods once."""

# Annotations on the operator's objects.
CONFIG_HASH = f"{GROUP}/config-hash"
"""On ConfigMaps and pods: of the configuration. Changing it on a pod makes the kubelet refresh its volumes at once."""
RELOAD = f"{GROUP}/reload"
"""On pods: when `kubectl feedmill reload` last asked the kubelet to refresh the volumes."""
DESIRED = f"{GROUP}/desired"
"""On every object: hash of the manifest it was last brought to. A field that is no longer wanted is noticed by it."""
TAKEN = f"{GROUP}/taken"
""""true" on a schedule's Job that has its FeedBackup or FeedRestore."""
RESTARTED = f"{GROUP}/restarted"
"""On pod templates: the value of RESTART that was carried out."""

CONFIG_DIR = "/etc/feedmill/config"
SECRETS_DIR = "/etc/feedmill/secrets"
SPILL_DIR = "/var/lib/feedmill/spill"
SPOOL_DIR = "/var/lib/feedmill/spool"
SCRATCH_DIR = "/var/lib/feedmill/scratch"
HEALTH_PORT = 8080

RECEIVER, DISTRIBUTOR, PROCESSOR, ACCOUNTS = "receiver", "distributor", "processor", "accounts"
MIGRATION, MAINTENANCE, NOTIFY = "migration", "maintenance", "notify"
BACKUP, BACKUP_RUN = "backup", "backup-run"
"""What uploads the database's log all the time, and the Jobs that make, drill or restore one backup or delete old
ones."""
REDIS, POSTGRES = "redis", "postgres"


class Run(StrEnum):
    """What a Job of BACKUP_RUN does: values of the label RUN."""

    LOGICAL = "logical"
    BASE = "base"
    VERIFY = "verify"
    RESTORE = "restore"
    PRUNE = "prune"


def short_hash(text: str, length: int = 8) -> str:
    """Of a text, for names: lower-case hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def feed_config(feed: str) -> str:
    return f"{feed}-feed-config"


def pipeline_config(pipeline: str) -> str:
    return f"{pipeline}-pipeline-config"


def accounts_config(pipeline: str) -> str:
    return f"{pipeline}-accounts-config"


def general_config(pipeline: str) -> str:
    """Of backups and notifications."""
    return f"{pipeline}-general-config"


def receiver(feed: str, shard: int) -> str:
    return f"{feed}-receiver-{shard}"


def distributor(feed: str, shard: int) -> str:
    return f"{feed}-distributor-{shard}"


def processor(pipeline: str) -> str:
    return f"{pipeline}-processor"


def accounts(pipeline: str) -> str:
    """Deployment of the account receivers."""
    return f"{pipeline}-accounts"


def maintenance(pipeline: str) -> str:
    return f"{pipeline}-maintenance"


def backup_schedule(pipeline: str, run: Run) -> str:
    """CronJob of the backups, of the drills, or of what deletes old ones; its Jobs have its name and the time."""
    words = {Run.LOGICAL: "backup", Run.VERIFY: "drill", Run.PRUNE: "prune"}
    return f"{pipeline}-{words[run]}"


def backup_log(pipeline: str) -> str:
    """Deployment of what uploads the database's log."""
    return f"{pipeline}-backup-log"


def run_job(run: Run, name: str) -> str:
    """Job of a FeedBackup or FeedRestore that somebody made."""
    return f"frs-{name}" if run in (Run.VERIFY, Run.RESTORE) else f"fbk-{name}"


def notify(pipeline: str) -> str:
    """Deployment of what sends notifications."""
    return f"{pipeline}-notify"


def migration(pipeline: str, key: str) -> str:
    """``key``: what the migration is of (image and database)."""
    return f"{pipeline}-migration-{short_hash(key)}"


def account(pipeline: str) -> str:
    """ServiceAccount of a pipeline's processes and its feeds'."""
    return f"{pipeline}-feedmill"


def managed(pipeline: str, server: str) -> str:
    """StatefulSet and Secret of a managed server (redis, postgres)."""
    return f"{pipeline}-{server}"


def service(pipeline: str, server: str) -> str:
    """Service of a managed server. The name of a Service begins with a letter, that of a pipeline may with a digit."""
    return managed(pipeline, server) if pipeline[:1].isalpha() else f"{server}-{pipeline}-service"

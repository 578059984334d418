"""``FeedPipeline.spec.backup``: when backups are made, where they go, how they are sealed, how long they are kept."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from feedmill.resources.base import DNS_SUBDOMAIN, Boolean, Hint, Integer, Model, Rule
from feedmill.resources.common import PodTemplate, ResourceRequirements, SecretKeyRef, SecretRef
from feedmill.resources.types import KeepFor, Quantity, Schedule, TimeZone

Prefix = Annotated[
    str,
    Field(pattern=r"^([-A-Za-z0-9_.=]+/)*[-A-Za-z0-9_.=]*$", max_length=512),
    Hint("write it without a leading /, in letters, digits and - _ . = /"),
]


class B2(Model):
    """A Backblaze B2 bucket."""

    bucket: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9]{4,62}$"),
        Hint("write a bucket's name: 5 to 63 letters, digits or '-'"),
    ]
    """Name of the bucket."""
    prefix: Prefix = ""
    """Folder in the bucket. Below it come the namespace and the name of the pipeline."""
    credentials_secret_ref: SecretRef
    """Secret with the keys `keyId` and `applicationKey`. Use an application key of this bucket alone."""
    realm: Annotated[
        str,
        Field(pattern=r"^(production|https?://[^\s/@?#]+)$", max_length=512),
        Hint("write production, or http:// or https:// and a host"),
    ] = "production"
    """Which B2: Backblaze's own, or the address of another."""


class S3(Model):
    """A bucket of S3, or of what speaks like it."""

    bucket: Annotated[
        str,
        Field(pattern=r"^[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]$"),
        Hint("write a bucket's name: 3 to 63 lower-case letters, digits, '-' or '.'"),
    ]
    """Name of the bucket."""
    prefix: Prefix = ""
    """Folder in the bucket. Below it come the namespace and the name of the pipeline."""
    credentials_secret_ref: SecretRef
    """Secret with the keys `accessKeyId` and `secretAccessKey`."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]{0,62}$"), Hint("write it as in us-east-1")] = "us-east-1"
    """Region of the bucket."""
    endpoint: (
        Annotated[
            str,
            Field(pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$", max_length=512),
            Hint("write http:// or https:// and a host, without credentials"),
        ]
        | None
    ) = None
    """Address of the server. Default: Amazon's, of the region."""
    path_style: Boolean = False
    """True: the bucket is named in the path instead of in the host, as most servers of one's own want it."""


class Folder(Model):
    """A folder: of this machine in local mode, of a volume on a cluster."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.claimName) || self.path.matches('^/[^/]')",
            "path must be absolute, since the volume is mounted there",
            ".path",
        ),
    )

    path: Annotated[
        str,
        Field(pattern=r"^[^\x00-\x1f:]+$", max_length=512),
        Hint("write a path, such as /var/backups/feedmill"),
    ]
    """The folder; a relative one counts from the working directory. Below it come the namespace and the name of the
    pipeline."""
    claim_name: Annotated[str, Field(pattern=DNS_SUBDOMAIN)] | None = None
    """Required on a cluster: the PersistentVolumeClaim that is mounted there. Not used in local mode."""


class Destination(Model):
    """Where backups are stored."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.b2), has(self.s3), has(self.folder)].filter(given, given).size() == 1",
            "give exactly one of b2, s3 and folder",
        ),
    )

    b2: B2 | None = None
    """A Backblaze B2 bucket."""
    s3: S3 | None = None
    """A bucket of S3, or of what speaks like it."""
    folder: Folder | None = None
    """A folder of this machine (local mode) or of a volume (cluster)."""

    @property
    def credentials(self) -> SecretRef | None:
        """The Secret that opens the destination; a folder needs none."""
        place = self.b2 or self.s3
        return place.credentials_secret_ref if place is not None else None


class Encryption(Model):
    """How backups are sealed before they leave."""

    key_secret_ref: SecretKeyRef
    """The keys, one a line: an id and 32 bytes as base64 (`feedmill backup key` makes one). The first seals, all of
    them open. Keep a copy where neither the cluster nor the destination is: without it no backup can be read."""


class BackupRetention(Model):
    """Which backups are kept."""

    max_age: KeepFor = KeepFor("30d")
    """Older ones are deleted, but never the newest good one."""
    max_count: Annotated[Integer, Field(ge=1, le=10000)] = 60
    """Most backups kept of each kind (logical, base)."""


class Spool(Model):
    """The folder in which the log of the database waits for its upload."""

    size: Quantity = Quantity("4Gi")
    """Most bytes in it. While it is full the server keeps its log itself."""


class Continuous(Model):
    """The log of the database is uploaded as it is written, so that it can be restored to any moment."""

    enabled: Boolean = False
    """True: do so. The server must allow a replication connection; where it does not, `BackupHealthy` says so and the
    backups of `schedule` go on."""
    base_schedule: Schedule = Schedule("0 2 * * 0")
    """When a base backup is made, from which the log is replayed."""
    spool: Spool = Field(default_factory=Spool)
    """Where the log waits for its upload."""


class Verification(Model):
    """Drills: the newest backup is restored into a scratch server and checked."""

    schedule: Schedule = Schedule("0 5 * * 0")
    """When."""
    suspend: Boolean = False
    """True: no drills."""


class Scratch(Model):
    """Room on disk for what a drill, or a restore to a moment, puts aside. Not used in local mode."""

    size: Quantity = Quantity("20Gi")
    """Most bytes; at least the size of the database."""


class Backup(Model):
    """Backups of PostgreSQL on a schedule, sealed before they leave."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.destination.b2) ? self.destination.b2.credentialsSecretRef.name : "
            "has(self.destination.s3) ? self.destination.s3.credentialsSecretRef.name : '') "
            "!= self.encryption.keySecretRef.name",
            "the key and the credentials of the destination must not be in one Secret, since who has both can read "
            "the backups: put the key into a Secret of its own",
            ".encryption.keySecretRef",
        ),
    )

    schedule: Schedule
    """When, in cron form (`"0 3 * * *"`)."""
    time_zone: TimeZone = TimeZone("UTC")
    """The zone of all schedules here."""
    suspend: Boolean = False
    """True: nothing is made or drilled by schedule, and the log is not uploaded, so nothing is restored to a moment of
    that time. A FeedBackup of one's own is carried out."""
    destination: Destination
    """Where backups are stored."""
    encryption: Encryption
    """How backups are sealed before they leave."""
    retention: BackupRetention = Field(default_factory=BackupRetention)
    """Which backups are kept."""
    continuous: Continuous = Field(default_factory=Continuous)
    """The log of the database is uploaded as it is written."""
    verify: Verification = Field(default_factory=Verification)
    """Drills of a restore."""
    scratch: Scratch = Field(default_factory=Scratch)
    """Room on disk for drills and restores."""
    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
    """CPU and memory of the container."""
    pod_template: PodTemplate | None = None
    """Additions to the pods."""

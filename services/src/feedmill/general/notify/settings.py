"""What the notifier needs to know, taken from the resources and from the Secret with the bot's token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from feedmill.general.notify.kinds import wanted
from feedmill.general.notify.quiet import QuietTimes
from feedmill.plan import Workload, plan
from feedmill.resources.collection import Resources
from feedmill.resources.common import SecretKeyRef
from feedmill.resources.cron import zone_of
from feedmill.resources.notifications import QuietHours
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.config import ConfigError, SecretsDir
from feedmill.shared.log import register_secret

ROLES = ("receiver", "distributor", "processor", "accounts")
"""Whose processes run all the time, and are missed."""


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Of one pipeline."""

    pipeline: str
    """namespace/name."""
    chat: str
    token_ref: SecretKeyRef
    base_url: str
    per_minute: int
    kinds: frozenset[str]
    """What is told."""
    mask_accounts: bool
    quiet: QuietTimes | None
    feeds: tuple[str, ...]
    """namespace/name of each."""
    expected: tuple[Workload, ...] = field(repr=False)
    """The processes that the manifests ask for, of :data:`ROLES`."""
    backup_schedule: tuple[str, str] | None = None
    """Cron form and time zone; None = no backups are asked for, or they are suspended."""


def notify_settings(resources: Resources, pipeline: FeedPipeline) -> NotifySettings:
    """Raises ConfigError where the pipeline does not say whom to tell."""
    name, spec = "/".join(pipeline.key), pipeline.spec
    telegram = spec.notifications.telegram if spec.notifications is not None else None
    if telegram is None:
        raise ConfigError(
            f"FeedPipeline {name}: spec.notifications.telegram is not there: add botTokenSecretRef and chatId"
        )
    backup = spec.backup
    return NotifySettings(
        pipeline=name,
        chat=telegram.chat_id,
        token_ref=telegram.bot_token_secret_ref,
        base_url=telegram.base_url.rstrip("/"),
        per_minute=telegram.per_minute,
        kinds=wanted(telegram.minimum_severity, frozenset(telegram.account_events)),
        mask_accounts=telegram.mask_accounts,
        quiet=_quiet(telegram.quiet_hours),
        feeds=tuple(sorted("/".join(feed.key) for feed in resources.feeds_of(pipeline))),
        expected=_expected(plan(resources), pipeline),
        backup_schedule=None if backup is None or backup.suspend else (str(backup.schedule), str(backup.time_zone)),
    )


def _expected(workloads: Sequence[Workload], pipeline: FeedPipeline) -> tuple[Workload, ...]:
    return tuple(load for load in workloads if load.pipeline == pipeline.key and load.role in ROLES)


def _quiet(hours: QuietHours | None) -> QuietTimes | None:
    return None if hours is None else QuietTimes(hours.from_.minutes, hours.to.minutes, zone_of(hours.time_zone))


def read_token(settings: NotifySettings, secrets_dir: Path | None) -> SecretStr:
    """The bot's token, registered for redaction. Reads a file (services: in a thread). Raises ConfigError."""
    reference = settings.token_ref
    where = f"FeedPipeline {settings.pipeline}: spec.notifications.telegram.botTokenSecretRef"
    if secrets_dir is None:
        raise ConfigError(
            f"{where} names Secret {reference.name!r}: give --secrets-dir with a file {reference.name}/{reference.key}"
        )
    try:
        token = SecretsDir(secrets_dir).read(reference.name, reference.key)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    text = token.get_secret_value().strip()
    number, colon, rest = text.partition(":")
    if not (colon and number.isdigit() and rest.isascii() and rest.replace("-", "").replace("_", "").isalnum()):
        raise ConfigError(
            f"{where}: Secret {reference.name!r}, key {reference.key!r} holds no bot token: write it as @BotFather "
            "gave it, digits, a colon and letters"
        )
    register_secret(text)
    return SecretStr(text)

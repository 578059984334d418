"""Errors of backups as one line for people, and the exit code: 2 where a file, a setting or a choice is wrong."""

from __future__ import annotations

from feedmill.accounts.keyring import KeyringError
from feedmill.cli.common import BAD_CONFIG, FAILED
from feedmill.cli.migrate import MigrateError
from feedmill.general.backup.base import BaseFailed
from feedmill.general.backup.choice import NoSuchBackup
from feedmill.general.backup.content import ContentError, MomentMissing, SchemaNewer
from feedmill.general.backup.dump import DumpError
from feedmill.general.backup.manifest import ManifestError
from feedmill.general.backup.programs import ProgramError
from feedmill.general.backup.restore import RestoreError, TargetNotEmpty
from feedmill.general.backup.seal import KeyMissing, SealedError, WrongKey
from feedmill.general.backup.slot import LogLost, NotAllowed
from feedmill.general.backup.stores.base import StoreError, StoreRefused
from feedmill.local.embedded.errors import EmbeddedError
from feedmill.resources.problems import ResourceError
from feedmill.shared import postgres
from feedmill.shared.config import ConfigError

_WRONG = (
    NoSuchBackup,
    MomentMissing,
    ResourceError,
    ConfigError,
    KeyringError,
    KeyMissing,
    WrongKey,
    SchemaNewer,
    StoreRefused,
    TargetNotEmpty,
)
_FAILED = (
    StoreError,
    SealedError,
    ContentError,
    ManifestError,
    DumpError,
    ProgramError,
    RestoreError,
    BaseFailed,
    NotAllowed,
    LogLost,
    MigrateError,
    EmbeddedError,
    postgres.SchemaBehind,
    *postgres.RETRYABLE,
)


def exit_code(error: Exception) -> int | None:
    """None: a fault of the code, which keeps its traceback."""
    if isinstance(error, _WRONG):
        return BAD_CONFIG
    return FAILED if isinstance(error, _FAILED) else None


def message(error: Exception) -> str:
    """One line."""
    if isinstance(error, postgres.RETRYABLE):
        return f"the database: {postgres.describe(error)}: {postgres.remedy_of(postgres.describe(error))}"
    return str(error) or type(error).__name__

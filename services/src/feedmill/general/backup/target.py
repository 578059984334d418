"""Where a pipeline's backups go and what seals them, from ``spec.backup`` and the folder of Secrets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from feedmill.accounts.keyring import KeyFile, Keyring
from feedmill.general.backup.names import Names
from feedmill.general.backup.stores import open_store
from feedmill.general.backup.stores.base import ObjectStore
from feedmill.general.backup.stores.calls import PATIENCE
from feedmill.resources.backup_policy import Backup
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.config import ConfigError, SecretsDir

_WHERE = "spec.backup"


@dataclass(frozen=True, slots=True)
class Target:
    """One pipeline's backups."""

    names: Names
    store: ObjectStore
    spec: Backup
    keys: KeyFile

    async def ring(self) -> Keyring:
        """The keys as their file has them now. Raises ConfigError."""
        return await asyncio.to_thread(self.keys.ring)


def open_target(pipeline: FeedPipeline, secrets_dir: Path | None, *, patience: float = PATIENCE) -> Target:
    """The target that a pipeline declares, its secrets looked at; nothing is connected. Close its store at the end.

    ``patience``: seconds for which a store that is away is asked again. Blocks for as long as files take. Raises
    ConfigError.
    """
    name = f"FeedPipeline {'/'.join(pipeline.key)}"
    spec = pipeline.spec.backup
    if spec is None:
        raise ConfigError(f"{name}: {_WHERE} is not set: give it a schedule, a destination and a key")
    key = spec.encryption.key_secret_ref
    if secrets_dir is None:
        raise ConfigError(
            f"{name}: {_WHERE}.encryption.keySecretRef names Secret {key.name!r}: give --secrets-dir with a file "
            f"{key.name}/{key.key} in it (feedmill backup key makes one)"
        )
    secrets = SecretsDir(secrets_dir)
    path = secrets.path(key.name, key.key)
    keys = KeyFile(path, f"{_WHERE}.encryption.keySecretRef")
    keys.ring()
    if spec.destination.folder is not None:
        _elsewhere(Path(spec.destination.folder.path), path)
    credentials = spec.destination.credentials
    if credentials is None:
        return Target(Names(*pipeline.key), open_store(spec.destination, _none), spec, keys)
    _apart(secrets, credentials.name, key.name)
    store = open_store(spec.destination, partial(secrets.read, credentials.name), patience=patience)
    return Target(Names(*pipeline.key), store, spec, keys)


def _apart(secrets: SecretsDir, credentials: str, key: str) -> None:
    """The rule of ``spec.backup`` compares names; here two names of one folder are noticed too. Raises ConfigError."""
    folders = [(secrets.root / name).resolve() for name in (credentials, key)]
    if folders[0] == folders[1]:
        raise ConfigError(
            f"{_WHERE}: the Secrets {credentials!r} and {key!r} are one folder, so who has the destination's "
            "credentials has the key as well: put the key into a folder of its own"
        )


def _elsewhere(destination: Path, key: Path) -> None:
    """Raises ConfigError where the key lies in the folder that its backups go to."""
    if key.is_relative_to(destination.expanduser().resolve()):
        raise ConfigError(
            f"{_WHERE}.encryption.keySecretRef: {key} lies in the folder of spec.backup.destination, so who has the "
            "backups has their key as well: name another folder for one of them"
        )


def _none(key: str) -> SecretStr:
    raise ConfigError(f"the destination needs no credentials, but {key} was asked for")

"""Secrets of ExchangeAccounts, from mounted files that may change at any time: compared by content, as often as the
list of accounts is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedmill.accounts import mounted
from feedmill.accounts.declared import Declared
from feedmill.accounts.fields import Secrets, SecretsError
from feedmill.shared.config import ConfigError, SecretsDir


@dataclass(slots=True)
class _Mount:
    secrets: Secrets | None = None
    version: int = 0
    """Grows with each change."""
    error: str = ""
    invalid: bool = False
    """They are there, and not of the form that the market takes."""


class Mounts:
    """``changed`` is called when any secrets have."""

    def __init__(self, folder: Path | None, changed: Callable[[], None], log: Any) -> None:
        self._folder = folder
        self._changed = changed
        self._log = log
        self._mounts: dict[str, _Mount] = {}
        self.declared: Mapping[str, Declared] = {}
        """By ``namespace/name``."""

    def version(self, account: str) -> int:
        """0 = its secrets cannot be read, -1 = they were not read yet."""
        found = self._mounts.get(account)
        return found.version if found is not None else -1

    def secrets(self, account: str) -> Secrets:
        """As last read. Raises ConfigError."""
        found = self._mounts.get(account)
        if found is None or found.secrets is None:
            raise ConfigError(found.error if found is not None else f"ExchangeAccount {account}: not read yet")
        return found.secrets

    def error_of(self, account: str) -> str:
        """Why its secrets as they are now cannot be used; empty when they can."""
        found = self._mounts.get(account)
        return found.error if found is not None else ""

    def is_invalid(self, account: str) -> bool:
        """Whether its secrets are there and cannot be used."""
        found = self._mounts.get(account)
        return found is not None and bool(found.error) and found.invalid

    async def look(self, accounts: Iterable[str]) -> None:
        """Read the secrets of these."""
        names = set(accounts)
        for name in self._mounts.keys() - names:
            del self._mounts[name]
        found: dict[str, Secrets | Exception] = {
            name: ConfigError(f"ExchangeAccount {name}: is in no manifest that this process has") for name in names
        }
        if wanted := [self.declared[name] for name in sorted(names) if name in self.declared]:
            found |= await asyncio.to_thread(self._read, wanted)
        changed = False
        for name, got in found.items():
            mount = self._mounts.setdefault(name, _Mount())
            if isinstance(got, Exception):
                if mount.error != str(got):
                    mount.error, mount.invalid = str(got), isinstance(got, SecretsError)
                    effect = "the former ones stay in use" if mount.secrets is not None else "it is not listened to"
                    self._log.warning("account.secret_unreadable", account=name, cause=mount.error, effect=effect)
                    changed = True
            elif got != mount.secrets:
                mount.secrets, mount.error, mount.version = got, "", mount.version + 1
                changed = True
            else:
                mount.error = ""
        if changed:
            self._changed()

    def _read(self, wanted: list[Declared]) -> dict[str, Secrets | Exception]:
        found: dict[str, Secrets | Exception] = {}
        for each in wanted:
            where = f"ExchangeAccount {each.name}: spec.credentialsSecretRef"
            try:
                if self._folder is None:
                    raise ConfigError(f"names Secret {each.secret!r}: give --secrets-dir with its files in it")
                found[str(each.name)] = mounted.read(SecretsDir(self._folder), each.secret, each.exchange, each.market)
            except (ConfigError, SecretsError) as error:
                found[str(each.name)] = type(error)(f"{where}: {error}")
            except OSError as error:
                found[str(each.name)] = ConfigError(f"{where}: Secret {each.secret!r}: {error.strerror}")
        return found

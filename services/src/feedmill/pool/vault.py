"""Secrets of accounts, opened when they are first used and again when they changed. Nothing is written anywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

from feedmill.accounts import audit, store
from feedmill.accounts.audit import Who
from feedmill.accounts.declared import is_declared
from feedmill.accounts.fields import Secrets, SecretsError
from feedmill.accounts.keyring import KeyFile
from feedmill.accounts.sealing import SealError
from feedmill.accounts.store import Account, AccountError, Listed
from feedmill.pool.mounts import Mounts
from feedmill.pool.sql import Session
from feedmill.shared import postgres
from feedmill.shared.config import ConfigError

UNUSABLE = (AccountError, SealError, SecretsError, ConfigError)
"""What :meth:`Vault.open` raises where only the user can help; the message names the remedy and no secret."""
NOTE_TIMEOUT = 2.0


class Vault:
    """Of the credential store and of mounted Secrets."""

    def __init__(self, database_url: postgres.Url, key_file: Path | None, mounts: Mounts) -> None:
        self.session = Session(database_url, "feedmill accounts secrets")
        self.who = Who.here("feedmill accounts pool")
        self._mounts = mounts
        self._path: Path | None = None
        self._key_file: KeyFile | None = None
        self.use_key_file(key_file)

    def use_key_file(self, path: Path | None) -> None:
        """None: the store's secrets cannot be opened."""
        if path != self._path:
            self._path = path
            self._key_file = KeyFile(path, "the file of key-encryption keys") if path is not None else None

    def version(self, listed: Listed) -> int:
        """Of an account's secrets as they are now: another one means that they are to be opened anew."""
        account = listed.account
        return self._mounts.version(str(account.name)) if is_declared(account) else listed.version

    async def open(self, listed: Listed) -> Secrets:
        """Raises one of UNUSABLE or postgres.RETRYABLE."""
        account = listed.account
        if is_declared(account):
            secrets = self._mounts.secrets(str(account.name))
            await self._note_use(account)
            return secrets
        if self._key_file is None:
            raise AccountError(
                "there is no key-encryption key: give --kek-file or FEEDMILL_KEK_FILE, "
                "or set spec.accounts.keyEncryptionSecretRef of the FeedPipeline"
            )
        ring = await asyncio.to_thread(self._key_file.ring)
        async with self.session.use() as connection:
            return await store.open_secrets(connection, ring, account, self.who, "listen")

    async def _note_use(self, account: Account) -> None:
        """In the audit log. PostgreSQL away is no reason not to listen: these secrets are not its to give."""
        declared = self._mounts.declared.get(str(account.name))
        detail = {"purpose": "listen", "secret": declared.secret if declared is not None else ""}
        try:
            async with asyncio.timeout(NOTE_TIMEOUT), self.session.use() as connection:
                await audit.write(connection, self.who, "use", account.id, str(account.name), detail)
        except (*postgres.RETRYABLE, postgres.SchemaBehind):
            return

    @property
    def error(self) -> str:
        """Why a changed key file is not used."""
        return self._key_file.error if self._key_file is not None else ""

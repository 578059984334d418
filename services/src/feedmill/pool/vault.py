"""Credentials of accounts, opened when they are first used and again when they changed. Nothing is written anywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.fields import SecretsError
from feedmill.accounts.keyring import KeyFile
from feedmill.accounts.sealing import SealError
from feedmill.accounts.store import AccountError, Listed
from feedmill.exchanges.account_base import Credentials
from feedmill.pool.sql import Session
from feedmill.shared import postgres
from feedmill.shared.config import ConfigError

UNUSABLE = (AccountError, SealError, SecretsError, ConfigError)
"""What :meth:`Vault.open` raises where only the user can help; the message names the remedy and no secret."""


class Vault:
    """``key_file`` None: the store's secrets cannot be opened."""

    def __init__(self, database_url: postgres.Url, key_file: Path | None) -> None:
        self.session = Session(database_url, "feedmill accounts secrets")
        self.who = Who.here("feedmill accounts pool")
        self._key_file = KeyFile(key_file, "the key-encryption keys in") if key_file is not None else None

    async def open(self, listed: Listed) -> Credentials:
        """Of the store. Raises one of UNUSABLE or postgres.RETRYABLE."""
        if self._key_file is None:
            raise AccountError(
                "there is no key-encryption key: give --kek-file or FEEDMILL_KEK_FILE, "
                "or set spec.accounts.keyEncryptionSecretRef of the FeedPipeline"
            )
        ring = await asyncio.to_thread(self._key_file.ring)
        async with self.session.use() as connection:
            secrets = await store.open_secrets(connection, ring, listed.account, self.who, "listen")
        return Credentials.of(secrets)

    @property
    def error(self) -> str:
        """Why a changed key file is not used."""
        return self._key_file.error if self._key_file is not None else ""

"""What local mode needs to listen to accounts, checked before anything is started: Secrets and key-encryption keys.

The processes read the files themselves, again whenever they change; nothing of them is kept here.
"""

from __future__ import annotations

from pathlib import Path

from feedmill.accounts.keyring import KeyFile
from feedmill.plan import has_account_pool, show_key
from feedmill.resources.collection import Resources
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.config import ConfigError, SecretsDir


def pools(resources: Resources) -> list[FeedPipeline]:
    """The pipelines whose account receivers are to run.

    Raises ConfigError when there are several: local mode has one database, and its accounts are listened to once.
    """
    found = [
        pipeline
        for _, pipeline in sorted(resources.pipelines.items())
        if has_account_pool(pipeline, resources.accounts_of(pipeline)) and not pipeline.spec.suspend
    ]
    if len(found) > 1:
        names = ", ".join(show_key(pipeline.key) for pipeline in found)
        raise ConfigError(
            f"pipelines {names} all have accounts: local mode has one database, whose accounts are listened to once: "
            "give them one pipeline, or run them apart"
        )
    return found


def check(resources: Resources, kek_file: Path | None, secrets_dir: Path | None) -> list[str]:
    """Raises ConfigError when an account could not be listened to for what is not given, or cannot be used.

    Returns lines for people: what is done without.
    """
    lines: list[str] = []
    for pipeline in pools(resources):
        secrets = SecretsDir(secrets_dir) if secrets_dir is not None else None
        for account in resources.accounts_of(pipeline):
            if not account.spec.suspend:
                exchange, name = account.spec.exchange, account.spec.credentials_secret_ref.name
                _check_secrets(show_key(account.key), name, (exchange.name, exchange.market), secrets)
        lines += _check_keys(pipeline, kek_file, secrets)
    return lines


def _check_secrets(account: str, secret: str, venue: tuple[str, str], secrets: SecretsDir | None) -> None:
    where = f"ExchangeAccount {account}: spec.credentialsSecretRef"
    if secrets is None:
        raise ConfigError(
            f"{where} names Secret {secret!r}: give --secrets-dir with files {secret}/apiKey and {secret}/apiSecret in "
            "it, or suspend the account"
        )
    # Imported here: it brings cryptography, which takes its time, and most manifests have no accounts.
    from feedmill.accounts import mounted
    from feedmill.accounts.fields import SecretsError

    try:
        mounted.read(secrets, secret, *venue)
    except (ConfigError, SecretsError) as error:
        raise ConfigError(f"{where}: {error}") from None


def _check_keys(pipeline: FeedPipeline, kek_file: Path | None, secrets: SecretsDir | None) -> list[str]:
    if kek_file is not None:
        KeyFile(kek_file, "--kek-file").ring()
        return []
    reference = pipeline.account_pool.key_encryption_secret_ref
    if reference is not None and secrets is not None:
        where = f"pipeline {pipeline.metadata.name}: spec.accounts.keyEncryptionSecretRef"
        KeyFile(secrets.path(reference.name, reference.key), where).ring()
        return []
    if pipeline.spec.accounts is None:
        return []
    ways = "--kek-file or FEEDMILL_KEK_FILE"
    if reference is not None:
        ways = f"--secrets-dir with {reference.name}/{reference.key}, {ways}"
    return [
        f"pipeline {pipeline.metadata.name}: no key-encryption key is given, so only ExchangeAccounts are listened to: "
        f"for those of feedmill accounts give {ways}"
    ]

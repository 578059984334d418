"""Secrets: which ones the pods mount, and those of managed servers."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from feedmill.resources.account import ExchangeAccount
from feedmill.resources.common import SecretKeyRef
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill_operator import names
from feedmill_operator.build.inputs import Manifest
from feedmill_operator.build.objects import Head, Place, manifest

REDIS_PORT, POSTGRES_PORT = 6379, 5432
USER = DATABASE = "feedmill"
URL, PASSWORD = "url", "password"
B2_KEYS, S3_KEYS = ("keyId", "applicationKey"), ("accessKeyId", "secretAccessKey")
VOLUME = "secrets"


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One key of one Secret, mounted at ``<secrets dir>/<secret>/<key>``."""

    secret: str
    key: str

    @property
    def path(self) -> str:
        return f"{names.SECRETS_DIR}/{self.secret}/{self.key}"


def server_keys(pipeline: FeedPipeline, servers: Iterable[str]) -> list[Key]:
    """What a process that talks to these servers (names.REDIS, names.POSTGRES) must have."""
    found: list[Key] = []
    for name in servers:
        server = pipeline.spec.redis if name == names.REDIS else pipeline.spec.postgres
        found.append(url_key(pipeline, name))
        if server.tls is not None:
            found.append(_key(server.tls.ca_secret_ref))
    return found


def url_key(pipeline: FeedPipeline, server: str) -> Key:
    """Where the URL of a server is: the user's Secret, else that of the managed one."""
    reference = (pipeline.spec.redis if server == names.REDIS else pipeline.spec.postgres).url_secret_ref
    return _key(reference) if reference is not None else Key(names.managed(pipeline.metadata.name, server), URL)


def exchange_keys(feed: ExchangeFeed) -> list[Key]:
    reference = feed.spec.exchange.credentials_secret_ref
    return [Key(reference.name, key) for key in ("apiKey", "apiSecret")] if reference is not None else []


def url_files(pipeline: FeedPipeline, servers: Iterable[str]) -> list[Manifest]:
    """Environment that names the files with the URLs of managed servers; other servers' are named by the manifest."""
    variables = {names.REDIS: "REDIS_URL_FILE", names.POSTGRES: "DATABASE_URL_FILE"}
    managed = {names.REDIS: pipeline.spec.redis.managed, names.POSTGRES: pipeline.spec.postgres.managed}
    return [
        {"name": variables[server], "value": url_key(pipeline, server).path}
        for server in servers
        if managed[server] is not None
    ]


def account_keys(accounts: Iterable[ExchangeAccount]) -> list[Key]:
    """What ExchangeAccounts may have in their Secrets; which of them it is depends on the venue and the kind of key."""
    secrets = {account.spec.credentials_secret_ref.name for account in accounts}
    return [Key(secret, key) for secret in sorted(secrets) for key in ("apiKey", "apiSecret", "privateKey")]


def key_encryption_key(pipeline: FeedPipeline) -> Key | None:
    """Where the key-encryption keys of the credential store are; None = nobody said."""
    reference = pipeline.account_pool.key_encryption_secret_ref
    return _key(reference) if reference is not None else None


def backup_keys(pipeline: FeedPipeline) -> list[Key]:
    """What opens the destination of backups, and what seals them: never of one Secret."""
    backup = pipeline.spec.backup
    if backup is None:
        return []
    found = [_key(backup.encryption.key_secret_ref)]
    for place, keys in ((backup.destination.b2, B2_KEYS), (backup.destination.s3, S3_KEYS)):
        if place is not None:
            found += [Key(place.credentials_secret_ref.name, key) for key in keys]
    return found


def notification_keys(pipeline: FeedPipeline) -> list[Key]:
    """What the services need that notifications are sent by."""
    telegram = pipeline.spec.notifications.telegram if pipeline.spec.notifications is not None else None
    return [_key(telegram.bot_token_secret_ref)] if telegram is not None else []


def volume(keys: Iterable[Key], optional: Iterable[Key] = ()) -> Manifest:
    """One projected volume with these keys and no others. A pod starts without the ``optional`` ones; each comes into
    the volume when it is there."""
    needed = set(keys)
    sources = _sources(needed) + [
        {"secret": each["secret"] | {"optional": True}} for each in _sources(set(optional) - needed)
    ]
    return {"name": VOLUME, "projected": {"sources": sources, "defaultMode": 0o440}}


def _sources(keys: Iterable[Key]) -> list[Manifest]:
    by_secret: dict[str, list[str]] = {}
    for key in sorted(keys):
        by_secret.setdefault(key.secret, []).append(key.key)
    return [
        {"secret": {"name": secret, "items": [{"key": key, "path": f"{secret}/{key}"} for key in found]}}
        for secret, found in by_secret.items()
    ]


def redis_secret(place: Place, password: str) -> Manifest:
    host = f"{names.service(place.pipeline, names.REDIS)}.{place.namespace}.svc"
    return _server_secret(place, names.REDIS, password, f"redis://:{quote(password, safe='')}@{host}:{REDIS_PORT}/0")


def postgres_secret(place: Place, password: str) -> Manifest:
    host = f"{names.service(place.pipeline, names.POSTGRES)}.{place.namespace}.svc"
    url = f"postgresql://{USER}:{quote(password, safe='')}@{host}:{POSTGRES_PORT}/{DATABASE}"
    return _server_secret(place, names.POSTGRES, password, url)


def _server_secret(place: Place, server: str, password: str, url: str) -> Manifest:
    head = Head("v1", "Secret", names.managed(place.pipeline, server), labels={names.WATCH: "true"})
    # stringData is write-only: what the server keeps is data, and that is what is compared with.
    return manifest(place, head, server, type="Opaque", data={PASSWORD: _base64(password), URL: _base64(url)})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _key(reference: SecretKeyRef) -> Key:
    return Key(reference.name, reference.key)

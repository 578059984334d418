"""The Secrets that a spec names: there, with the keys, and of a form the processes can use.

A value is looked at and forgotten; no message repeats any of it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from feedmill.resources.common import SecretKeyRef
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.config import ConfigError, resolve_urls
from feedmill_operator.build.secrets import B2_KEYS, S3_KEYS
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import KubeApi
from feedmill_operator.reconcile.reasons import Reason
from feedmill_operator.reconcile.validity import Refusal

MOST_BYTES = 64 * 1024
"""A value larger than this is refused by the processes."""


class Form(Enum):
    """What a value must look like."""

    TEXT = "text"
    REDIS_URL = "redis"
    POSTGRES_URL = "postgres"
    CERTIFICATES = "certificates"
    KEY_ENCRYPTION_KEYS = "key-encryption keys"


@dataclass(frozen=True, slots=True)
class Reference:
    """One key of one Secret that a spec names."""

    field: str
    """Where it is named: ``spec.redis.urlSecretRef``."""
    secret: str
    key: str
    form: Form = Form.TEXT
    tls: bool = False
    """A URL whose server's certificate is to be checked by an authority of the user's."""


def of_pipeline(pipeline: FeedPipeline) -> list[Reference]:
    """What the processes of a pipeline and of its feeds need."""
    found: list[Reference] = []
    servers = (("redis", pipeline.spec.redis, Form.REDIS_URL), ("postgres", pipeline.spec.postgres, Form.POSTGRES_URL))
    for name, server, form in servers:
        tls = server.tls is not None
        if server.url_secret_ref is not None:
            found.append(_reference(f"spec.{name}.urlSecretRef", server.url_secret_ref, form, tls=tls))
        if server.tls is not None:
            found.append(_reference(f"spec.{name}.tls.caSecretRef", server.tls.ca_secret_ref, Form.CERTIFICATES))
    wrapping = pipeline.account_pool.key_encryption_secret_ref
    if wrapping is not None:
        found.append(_reference("spec.accounts.keyEncryptionSecretRef", wrapping, Form.KEY_ENCRYPTION_KEYS))
    return found


def of_backups(pipeline: FeedPipeline) -> list[Reference]:
    """What only the backups of a pipeline need: the key, and what opens the destination."""
    backup = pipeline.spec.backup
    if backup is None:
        return []
    key = backup.encryption.key_secret_ref
    found = [_reference("spec.backup.encryption.keySecretRef", key, Form.KEY_ENCRYPTION_KEYS)]
    places = (("b2", backup.destination.b2, B2_KEYS), ("s3", backup.destination.s3, S3_KEYS))
    for name, place, keys in places:
        if place is not None:
            field = f"spec.backup.destination.{name}.credentialsSecretRef"
            found += [Reference(field, place.credentials_secret_ref.name, each) for each in keys]
    return found


def not_apart(
    key: Reference, credentials: Reference, secrets: Mapping[str, Mapping[str, Any] | None]
) -> Refusal | None:
    """Why the key of backups and the credentials of their destination are in one place after all, whatever the names:
    who could read one Secret could read the backups. Pure."""
    keys = (secrets.get(key.secret) or {}).get("data") or {}
    opens = (secrets.get(credentials.secret) or {}).get("data") or {}
    if credentials.key in keys:
        holds = f"Secret {key.secret} holds {credentials.key} of the destination beside the key"
    elif keys.get(key.key) in opens.values():
        holds = f"Secret {credentials.secret} holds the key beside the credentials of the destination"
    else:
        return None
    return Refusal(Reason.SECRET_INVALID, f"{key.field}: {holds}: take it out, since who has both can read the backups")


def of_feed(feed: ExchangeFeed) -> list[Reference]:
    """What only the feed names: the exchange's credentials."""
    credentials = feed.spec.exchange.credentials_secret_ref
    if credentials is None:
        return []
    return [Reference("spec.exchange.credentialsSecretRef", credentials.name, key) for key in ("apiKey", "apiSecret")]


def judge_credentials(name: str, secret: Mapping[str, Any] | None, namespace: str) -> Refusal | None:
    """What is wrong with the Secret of an ExchangeAccount, as far as it can be told without its values' meaning: the
    processes look at that. Pure."""
    field, both = "spec.credentialsSecretRef", "apiSecret, or privateKey for an Ed25519 key"
    if secret is None:
        make = f"kubectl -n {namespace} create secret generic {name} --from-file=apiKey --from-file=apiSecret"
        return Refusal(
            Reason.SECRET_NOT_FOUND,
            f"{field}: there is no Secret {name} in namespace {namespace}: make it of such files, for example "
            f"`{make}` (Ed25519: privateKey in place of apiSecret)",
        )
    data = secret.get("data") or {}
    there = [key for key in ("apiSecret", "privateKey") if key in data]
    missing = "apiKey" if "apiKey" not in data else "" if there else both
    if missing:
        known = ", ".join(sorted(data)[:10]) or "none"
        return Refusal(
            Reason.SECRET_KEY_MISSING, f"{field}: Secret {name} has no key {missing} (it has: {known}): add it"
        )
    if len(there) > 1:
        wrong = "the keys apiSecret and privateKey are both there: keep the one that belongs to apiKey"
        return Refusal(Reason.SECRET_INVALID, f"{field}: Secret {name} cannot be used: {wrong}")
    for key in ("apiKey", *there):
        if (plain := _wrong_text(decode(data[key]))) is not None:
            return Refusal(Reason.SECRET_INVALID, f"{field}: key {key} of Secret {name} cannot be used: {plain}")
    return None


def _reference(field: str, ref: SecretKeyRef, form: Form, *, tls: bool = False) -> Reference:
    return Reference(field, ref.name, ref.key, form, tls)


async def check(
    api: KubeApi, pipeline: FeedPipeline, references: Iterable[Reference], namespace: str
) -> Refusal | None:
    """The first reference that cannot be used, None when all can. Each Secret is fetched once.

    Raises ApiError when the API server could not be asked.
    """
    fetched: dict[str, Mapping[str, Any] | None] = {}
    for reference in references:
        if reference.secret not in fetched:
            fetched[reference.secret] = await api.get(kinds.SECRET, namespace, reference.secret)
        refusal = judge(reference, fetched[reference.secret], pipeline, namespace)
        if refusal is not None:
            return refusal
    return None


def judge(
    reference: Reference, secret: Mapping[str, Any] | None, pipeline: FeedPipeline, namespace: str
) -> Refusal | None:
    """What is wrong with a reference, given the Secret it names. Pure."""
    name, key = reference.secret, reference.key
    literal = f"--from-literal={key}=…"
    if reference.form is Form.CERTIFICATES:
        literal = f"--from-file={key}=ca.crt"
    elif reference.form is Form.KEY_ENCRYPTION_KEYS:
        literal = f"--from-file={key}=FILE"
    if secret is None:
        return Refusal(
            Reason.SECRET_NOT_FOUND,
            f"{reference.field}: there is no Secret {name} in namespace {namespace}: make it, for example "
            f"`kubectl -n {namespace} create secret generic {name} {literal}`",
        )
    data = secret.get("data") or {}
    if key not in data:
        known = ", ".join(sorted(data)[:10]) or "none"
        return Refusal(
            Reason.SECRET_KEY_MISSING,
            f"{reference.field}: Secret {name} has no key {key} (it has: {known}): add the key, or name another in "
            f"{reference.field}.key"
            if not reference.field.endswith("credentialsSecretRef")
            else f"{reference.field}: Secret {name} has no key {key} (it has: {known}): add it",
        )
    wrong = _wrong(reference, data[key], pipeline)
    if wrong is None:
        return None
    return Refusal(Reason.SECRET_INVALID, f"{reference.field}: key {key} of Secret {name} cannot be used: {wrong}")


def _wrong(reference: Reference, encoded: Any, pipeline: FeedPipeline) -> str | None:
    value = decode(encoded)
    wrong = _wrong_text(value)
    if wrong is not None or value is None:
        return wrong
    if reference.form is Form.REDIS_URL:
        return _wrong_url(pipeline, "REDIS_URL", value, reference)
    if reference.form is Form.POSTGRES_URL:
        return _wrong_url(pipeline, "DATABASE_URL", value, reference)
    if reference.form is Form.CERTIFICATES and "-----BEGIN CERTIFICATE-----" not in value:
        return "it holds no certificate: it must be PEM text (-----BEGIN CERTIFICATE-----)"
    return None


def _wrong_text(value: str | None) -> str | None:
    if value is None:
        return "it is not UTF-8 text"
    if len(value) > MOST_BYTES:
        return f"it is larger than {MOST_BYTES} bytes: it should hold one value"
    return None if value.strip() else "it is empty: write the value into it"


def _wrong_url(pipeline: FeedPipeline, variable: str, value: str, reference: Reference) -> str | None:
    """As the processes will judge it. Their messages repeat no part of the URL."""
    spec = pipeline.spec
    plain = pipeline.model_copy(
        update={
            "spec": spec.model_copy(
                update={
                    "redis": spec.redis.model_copy(update={"tls": None}),
                    "postgres": spec.postgres.model_copy(update={"tls": None}),
                }
            )
        }
    )
    env = {"REDIS_URL": "redis://localhost", "DATABASE_URL": "postgresql://localhost/x"} | {variable: value}
    try:
        redis, database = resolve_urls(plain, env)
    except ConfigError as error:
        return str(error).removeprefix(f"{variable}: ")
    if reference.tls and variable == "REDIS_URL" and not redis.tls:
        return "spec.redis.tls is set, but the URL is not rediss://: change one of them"
    if reference.tls and variable == "DATABASE_URL" and _goes_without(database):
        return "spec.postgres.tls is set, but the URL's sslmode may go without: remove sslmode"
    return None


def _goes_without(url: str) -> bool:
    return any(f"sslmode={mode}" in url.partition("?")[2] for mode in ("disable", "allow", "prefer"))


def decode(encoded: Any) -> str | None:
    """A value of ``data`` as the processes read it; None when it is no text."""
    try:
        return base64.b64decode(str(encoded), validate=True).decode().rstrip("\r\n")
    except (binascii.Error, UnicodeDecodeError):
        return None

"""Settings of a process: from the environment, from files named there, and from mounted Secrets.

Everything is read and checked before anything connects. Values are secrets: they are kept as SecretStr, registered for
redaction in logs, and no message here ever repeats one.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from feedmill.resources.common import SecretKeyRef
from feedmill.resources.pipeline import FeedPipeline, Postgres, Redis
from feedmill.shared.log import register_secret
from feedmill.shared.redis.url import RedisUrl, RedisUrlError

MAX_SECRET_BYTES = 64 * 1024
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class ConfigError(ValueError):
    """A setting is missing or cannot be used; the message names it and the remedy, never its value."""


def read_text(path: Path, what: str) -> str:
    """Text of a file that holds a secret; raises ConfigError, beginning with ``what``."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{what}: {path} is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{what}: there is no file {path}: check the path") from None
    except OSError as error:
        raise ConfigError(f"{what}: {path} cannot be read ({error.strerror}): check its owner and mode") from None
    if len(content) > MAX_SECRET_BYTES:
        raise ConfigError(f"{what}: {path} is larger than {MAX_SECRET_BYTES} bytes: it should hold one value")
    try:
        text = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{what}: {path} is not UTF-8 text") from None
    if not text.strip():
        raise ConfigError(f"{what}: {path} is empty: write the value into it")
    return text


def read_setting(env: Mapping[str, str], name: str) -> SecretStr | None:
    """``NAME``, or the content of the file that ``NAME_FILE`` names; None when neither is set.

    Raises ConfigError when both are set, or the file cannot be read or is empty.
    """
    value, file = env.get(name, ""), env.get(f"{name}_FILE", "")
    if value and file:
        raise ConfigError(f"{name} and {name}_FILE are both set: keep one")
    if file:
        return SecretStr(read_text(Path(file).expanduser().resolve(), f"{name}_FILE"))
    return SecretStr(value) if value else None


class SecretsDir:
    """A folder of mounted Secrets: ``<folder>/<secret>/<key>``, nothing outside of it.

    The symlinks Kubernetes makes (``key -> ..data/key``, ``..data -> ..2026_…``) stay inside and are followed.
    """

    def __init__(self, root: Path) -> None:
        try:
            self.root = root.expanduser().resolve(strict=True)
        except (OSError, RuntimeError):
            raise ConfigError(f"--secrets-dir {root}: there is no such folder: check the path") from None
        if not self.root.is_dir():
            raise ConfigError(f"--secrets-dir {root}: is not a folder")

    def path(self, name: str, key: str) -> Path:
        """Resolved path of one key; raises ConfigError when it is missing or leads out of the folder."""
        what = f"Secret {name!r}, key {key!r}"
        if (
            not _NAME.fullmatch(name)
            or not _KEY.fullmatch(key)
            or key in (".", "..")
            or key.startswith("..")
            or ".." in name
        ):
            raise ConfigError(f"{what}: not a name Kubernetes knows: check name and key of the reference")
        folder = self.root / name
        try:
            real = (folder / key).resolve(strict=True)
        except (OSError, RuntimeError):
            if not folder.is_dir():
                raise ConfigError(f"{what}: {folder} does not exist: make it, or check the reference's name") from None
            raise ConfigError(f"{what}: {folder} holds no file {key}: add it, or check the reference's key") from None
        if not real.is_relative_to(self.root):
            raise ConfigError(f"{what}: leads out of {self.root}: put the file itself there")
        return real

    def read(self, name: str, key: str) -> SecretStr:
        """Value of one key, registered for redaction; raises ConfigError."""
        value = read_text(self.path(name, key), f"Secret {name!r}, key {key!r}")
        register_secret(value)
        return SecretStr(value)


SERVERS = frozenset(("redis", "postgres"))


def resolve_urls(
    pipeline: FeedPipeline,
    env: Mapping[str, str],
    secrets_dir: Path | None = None,
    servers: frozenset[str] = SERVERS,
) -> tuple[RedisUrl, str]:
    """(Redis URL, database URL) of a pipeline, both checked. One that is not among ``servers`` is not looked for, and
    empty.

    ``REDIS_URL`` and ``DATABASE_URL`` (or ``*_FILE``) come first, then the Secrets that the pipeline names. The second
    one is a secret: never log it. Raises ConfigError.
    """
    secrets = SecretsDir(secrets_dir) if secrets_dir is not None else None
    redis = _redis_url(pipeline, env, secrets) if "redis" in servers else RedisUrl("", 0)
    return redis, _database_url(pipeline, env, secrets) if "postgres" in servers else ""


def _redis_url(pipeline: FeedPipeline, env: Mapping[str, str], secrets: SecretsDir | None) -> RedisUrl:
    spec = pipeline.spec
    redis_text, redis_from = _url(pipeline, "redis", "REDIS_URL", spec.redis, env, secrets)
    try:
        redis = RedisUrl.parse(redis_text.get_secret_value())
    except RedisUrlError as error:
        raise ConfigError(f"{redis_from}: {error}") from None
    except ValueError:
        raise ConfigError(f"{redis_from}: cannot be read: write redis://host:port/db") from None
    _register(redis.password)
    if spec.redis.tls is not None:
        if not redis.tls:
            raise ConfigError(f"{redis_from}: spec.redis.tls is set, but the URL is not rediss://: change one of them")
        redis = replace(redis, ca_file=str(_ca(spec.redis.tls.ca_secret_ref, "redis", secrets)))
    return redis


def _database_url(pipeline: FeedPipeline, env: Mapping[str, str], secrets: SecretsDir | None) -> str:
    spec = pipeline.spec
    database_text, database_from = _url(pipeline, "postgres", "DATABASE_URL", spec.postgres, env, secrets)
    database = check_database_url(database_text.get_secret_value(), database_from)
    if spec.postgres.tls is not None:
        database = _with_ca(database, _ca(spec.postgres.tls.ca_secret_ref, "postgres", secrets), database_from)
    return database


def _url(
    pipeline: FeedPipeline,
    part: str,
    variable: str,
    server: Redis | Postgres,
    env: Mapping[str, str],
    secrets: SecretsDir | None,
) -> tuple[SecretStr, str]:
    """The URL and where it came from."""
    value = read_setting(env, variable)
    if value is not None:
        return value, variable if env.get(variable) else f"{variable}_FILE"
    name = f"FeedPipeline {'/'.join(pipeline.key)}"
    reference = server.url_secret_ref
    if reference is None:
        raise ConfigError(
            f"{name}: spec.{part} is managed and {variable} is not set: start it with feedmill up, or set {variable}"
        )
    where = f"{name}: spec.{part}.urlSecretRef"
    if secrets is None:
        raise ConfigError(
            f"{where} names Secret {reference.name!r}: give --secrets-dir with a file {reference.name}/{reference.key} "
            f"in it, or set {variable}"
        )
    return secrets.read(reference.name, reference.key), where


def _ca(reference: SecretKeyRef, part: str, secrets: SecretsDir | None) -> Path:
    if secrets is None:
        raise ConfigError(f"spec.{part}.tls.caSecretRef names Secret {reference.name!r}: give --secrets-dir")
    return secrets.path(reference.name, reference.key)


def _register(password: str | None) -> None:
    if password:
        register_secret(password)
        register_secret(quote(password, safe=""))


def check_database_url(url: str, source: str = "DATABASE_URL") -> str:
    """The URL as asyncpg takes it, its password registered for redaction; raises ConfigError without repeating it."""
    form = "write postgresql://user:password@host:5432/database"
    text = url.strip()
    # What follows a raw / ? # in a password would end up in messages as path or port: nothing is quoted from here on.
    try:
        parts = urlsplit(text)
        userinfo, _, hosts = parts.netloc.rpartition("@")
    except ValueError:
        raise ConfigError(f"{source}: the database URL cannot be read: {form}") from None
    if "+" in parts.scheme and parts.scheme.partition("+")[0] in ("postgresql", "postgres"):
        raise ConfigError(f"{source}: the database URL names a driver (+...): {form}")
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigError(f"{source}: the database URL does not begin with postgresql://: {form}")
    _register(unquote(userinfo.partition(":")[2]))
    query = dict(parse_qsl(parts.query))
    _register(query.get("password"))
    encoded = "characters such as / ? # @ : in the password must be percent-encoded (%2F, %3F, ...)"
    if not hosts and "host" not in query:
        raise ConfigError(f"{source}: the database URL names no host: {form}; {encoded}")
    for host in hosts.split(",") if hosts else []:
        if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/]+)(:[0-9]{1,5})?", host):
            raise ConfigError(f"{source}: the database URL's host and port cannot be read: {form}; {encoded}")
        port = re.search(r":([0-9]{1,5})$", host)
        if port and not host.endswith("]") and not 1 <= int(port[1]) <= 65535:
            raise ConfigError(f"{source}: the database URL's port is not 1 to 65535: {form}")
    if not parts.path.strip("/") and not (query.get("dbname") or query.get("database")):
        raise ConfigError(f"{source}: the database URL names no database: {form}")
    if "/" in parts.path.strip("/") or parts.fragment:
        raise ConfigError(f"{source}: the database URL's database name cannot be read: {form}; {encoded}")
    if query.get("sslmode", "prefer") not in _SSL_MODES:
        raise ConfigError(f"{source}: the database URL's sslmode is not known: write one of {', '.join(_SSL_MODES)}")
    return text


def _with_ca(url: str, ca_file: Path, source: str) -> str:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if query.get("sslmode") in ("disable", "allow", "prefer"):
        raise ConfigError(f"{source}: spec.postgres.tls is set, but the URL's sslmode may go without: remove sslmode")
    query.setdefault("sslmode", "verify-full")
    query["sslrootcert"] = str(ca_file)
    return urlunsplit(parts._replace(query=urlencode(query)))

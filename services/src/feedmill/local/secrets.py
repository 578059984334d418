"""Server URLs of local mode that stand in Secrets: files of ``--secrets-dir``, as mounted in Kubernetes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from feedmill.resources.pipeline import FeedPipeline, Postgres, Redis
from feedmill.shared.config import ConfigError, SecretsDir

_PARTS = (("redis", "REDIS_URL"), ("postgres", "DATABASE_URL"))


def environment_of(
    pipelines: Iterable[FeedPipeline], environ: Mapping[str, str], secrets_dir: Path | None
) -> dict[str, str]:
    """``environ`` with REDIS_URL and DATABASE_URL from the Secrets that the pipelines name, where these are given.

    What ``environ`` sets already stays. Without ``secrets_dir`` a ``urlSecretRef`` is passed over: local mode then
    brings its own server. Raises ConfigError, also when pipelines name different servers (local mode has one of each).
    """
    found = dict(environ)
    if secrets_dir is None:
        return found
    secrets = SecretsDir(secrets_dir)
    all_pipelines = list(pipelines)
    for part, variable in _PARTS:
        if environ.get(variable) or environ.get(f"{variable}_FILE"):
            continue
        urls: dict[str, str] = {}
        for pipeline in all_pipelines:
            server: Redis | Postgres = getattr(pipeline.spec, part)
            if server.url_secret_ref is not None:
                urls["/".join(pipeline.key)] = _url(server, part, secrets)
        if len(set(urls.values())) > 1:
            raise ConfigError(
                f"pipelines {', '.join(urls)} name different servers in spec.{part}: local mode has one of each, "
                f"run them apart, or set {variable}"
            )
        if urls:
            found[variable] = next(iter(urls.values()))
    return found


def passed_over(pipelines: Iterable[FeedPipeline], environ: Mapping[str, str], secrets_dir: Path | None) -> list[str]:
    """For people: the references of which nothing comes, since there is no ``secrets_dir``.

    Raises ConfigError where an embedded server cannot take the place: it has no TLS.
    """
    if secrets_dir is not None:
        return []
    lines: list[str] = []
    for pipeline in pipelines:
        for part, variable in _PARTS:
            server: Redis | Postgres = getattr(pipeline.spec, part)
            if server.url_secret_ref is None or environ.get(variable) or environ.get(f"{variable}_FILE"):
                continue
            where = f"pipeline {pipeline.metadata.name}: spec.{part}"
            if server.tls is not None:
                raise ConfigError(
                    f"{where}.tls: needs your own server, and none is given: add --secrets-dir with what urlSecretRef "
                    "and tls name, or remove tls to use an embedded server"
                )
            lines.append(
                f"{where}.urlSecretRef needs --secrets-dir (or {variable}): an embedded server is used instead"
            )
    return lines


def _url(server: Redis | Postgres, part: str, secrets: SecretsDir) -> str:
    assert server.url_secret_ref is not None
    url = secrets.read(server.url_secret_ref.name, server.url_secret_ref.key).get_secret_value().strip()
    if server.tls is None:
        return url
    reference = server.tls.ca_secret_ref
    ca_file = quote(str(secrets.path(reference.name, reference.key)), safe="/")
    added = f"ssl_ca_certs={ca_file}" if part == "redis" else f"sslrootcert={ca_file}"
    if part == "postgres" and "sslmode=" not in url:
        added += "&sslmode=verify-full"
    return f"{url}{'&' if '?' in url else '?'}{added}"

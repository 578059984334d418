"""What the commands of ``feedmill run`` share: their options, what they read and check, and the process itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

from feedmill.cli.common import BAD_CONFIG
from feedmill.plan import PlanError, shard_symbols
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.load import Key, ResourceError, Resources, Texts, read_files
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.problems import choose
from feedmill.shared.checked import CheckFailed, load_checked
from feedmill.shared.config import ConfigError, resolve_urls
from feedmill.shared.log import redact
from feedmill.shared.service import FAILED, Main, run_service
from feedmill.shared.tracing import Identity, Sampling, TracingSettings, TracingUnavailable

_SERVERS = {
    "receiver": frozenset(("redis",)),
    "distributor": frozenset(("redis",)),
    "processor": frozenset(("redis", "postgres")),
    "accounts": frozenset(("redis", "postgres")),
    "maintenance": frozenset(("redis", "postgres")),
    "notify": frozenset(("postgres",)),
    "backup": frozenset(("postgres",)),
}
"""Whose URLs a service needs: it is given no other."""
_TRACED = frozenset(("receiver", "distributor", "processor", "accounts"))
"""Services that make spans."""
REPLICA = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
Named = TypeVar("Named", ExchangeFeed, FeedPipeline)


class LogLevel(StrEnum):
    """Least weight of a log line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


FeedName = Annotated[
    str, typer.Option("--feed", metavar="NAMESPACE/NAME", help="The feed: NAMESPACE/NAME.", show_default=False)
]
PipelineName = Annotated[
    str, typer.Option("--pipeline", metavar="NAMESPACE/NAME", help="The pipeline: NAMESPACE/NAME.", show_default=False)
]
Shard = Annotated[
    int, typer.Option("--shard", min=0, metavar="NUMBER", help="Number of the shard, from 0.", show_default=False)
]
SecretsFolder = Annotated[
    Path | None,
    typer.Option(
        "--secrets-dir", metavar="DIR", help="Folder of Secrets (SECRET/KEY), for the urlSecretRef of the pipeline."
    ),
]
HealthHost = Annotated[
    str, typer.Option("--health-host", metavar="ADDRESS", help="Address the health server listens on.")
]
HealthPort = Annotated[
    int, typer.Option("--health-port", min=0, max=65535, metavar="PORT", help="Its port; 0 = any free one.")
]
PortFile = Annotated[
    Path | None, typer.Option("--port-file", metavar="FILE", help="File to write the health server's port to.")
]
Level = Annotated[
    LogLevel | None,
    typer.Option(
        "--log-level",
        help="Least weight of a log line, whatever spec.logLevel says.",
        show_default="spec.logLevel",
    ),
]
Reload = Annotated[
    bool,
    typer.Option(
        "--reload/--no-reload", help="Follow changes of the manifests while it runs. Those of Secrets always are."
    ),
]


def refuse(message: str) -> NoReturn:
    typer.echo(redact(message), err=True)
    raise typer.Exit(BAD_CONFIG)


def _key(text: str, option: str) -> Key:
    namespace, _, name = text.rpartition("/")
    if not name or "/" in namespace or text.startswith("/"):
        refuse(f"{option} {text!r}: write NAMESPACE/NAME, such as default/btc")
    return namespace or "default", name


def load(config: list[Path], main: str) -> tuple[Texts, Resources]:
    """``main``: the module of the service, which is imported while the manifests are checked."""
    read = read_files(config)
    try:
        return read, load_checked(read, warm=main)
    except ResourceError as error:
        refuse(str(error))
    except CheckFailed as error:
        typer.echo(redact(str(error)), err=True)
        raise typer.Exit(FAILED) from None


def pick(found: dict[Key, Named], text: str, option: str) -> Named:
    item = found.get(_key(text, option))
    if item is None:
        names = sorted("/".join(key) for key in found)
        refuse(f"{option} {text!r}: the files hold none of that name: {choose(text, names)}")
    return item


def check_replica(replica: str) -> str:
    if not REPLICA.fullmatch(replica):
        refuse(f"--replica {replica!r}: write lower-case letters, digits and '-', such as r0")
    return replica


@dataclass(frozen=True, slots=True)
class Options:
    """What all services are given alike."""

    config: list[Path]
    secrets_dir: Path | None
    host: str
    port: int
    port_file: Path | None
    level: LogLevel | None
    reload: bool


def carry_out(role: str, main: Main, options: Options, read: Texts, worked_for: ExchangeFeed | FeedPipeline,
         pipeline: FeedPipeline, *which: object) -> NoReturn:  # fmt: skip
    """``worked_for``: whose log level counts; ``which``: one of its processes this is, for traces and log."""
    servers = _SERVERS[role]
    try:
        redis_url, database_url = resolve_urls(pipeline, os.environ, options.secrets_dir, servers)
    except ConfigError as error:
        refuse(str(error))
    key = worked_for.key

    def level_of(resources: Resources) -> str:
        found = resources.feeds[key] if isinstance(worked_for, ExchangeFeed) else resources.pipelines[key]
        return found.spec.log_level.value.lower()

    tracing = None
    instance = "/".join(map(str, (*key, *which)))
    if role in _TRACED:
        tracing = Sampling(Identity(role, "/".join(pipeline.key), instance))
        try:
            tracing.start(TracingSettings.of(pipeline))
        except TracingUnavailable as error:
            refuse(str(error))

    from feedmill.shared.reload import Origin, same_pipeline

    origin = Origin(
        paths=tuple(options.config),
        read=read,
        pipeline=pipeline,
        pipeline_of=lambda resources: same_pipeline(resources, pipeline.key),
        level_of=level_of if options.level is None else None,
        environment=os.environ,
        secrets_dir=options.secrets_dir,
        servers=servers,
        follow=options.reload,
    )
    names: dict[str, object] = {"pipeline": "/".join(pipeline.key), "instance": instance}
    if isinstance(worked_for, ExchangeFeed):
        names |= {"feed": "/".join(key), "shard": which[0]}
    code = run_service(
        role,
        main,
        redis_url=redis_url,
        database_url=database_url,
        host=options.host,
        port=options.port,
        port_file=options.port_file,
        log_level=(options.level.value if options.level is not None else worked_for.spec.log_level.value.lower()),
        origin=origin,
        tracing=tracing,
        names=names,
    )
    raise typer.Exit(code)


def feed_and_pipeline(resources: Resources, feed: str, shard: int) -> tuple[ExchangeFeed, FeedPipeline]:
    found = pick(resources.feeds, feed, "--feed")
    try:
        shard_symbols(found, shard)
    except PlanError as error:
        refuse(f"--shard {shard}: {error}")
    return found, resources.pipeline_of(found)

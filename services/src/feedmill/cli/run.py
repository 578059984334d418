"""``feedmill run ROLE``: one service process, as local mode and Kubernetes start it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

from feedmill.plan import PlanError, shard_symbols
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.load import Key, ResourceError, Resources, Texts, read_files
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.problems import choose
from feedmill.shared.checked import CheckFailed, load_checked
from feedmill.shared.config import ConfigError, resolve_urls
from feedmill.shared.log import redact
from feedmill.shared.service import FAILED, Main, ServiceContext, run_service
from feedmill.shared.tracing import Identity, Sampling, TracingSettings, TracingUnavailable

HELP = """Run one service process. feedmill up and the operator do this for you; by hand it is for a closer look.

Each needs the manifests and the URLs of the servers it uses: REDIS_URL (all but notify and backup) and DATABASE_URL
(all but receiver and distributor; a database that feedmill migrate has brought up to date), or *_FILE, or
--secrets-dir with what the pipeline's urlSecretRef names. Changes of the manifests and of these files are followed.
It serves /healthz, /readyz, /health and /metrics, and drains on SIGTERM. Exit codes: 0 stopped in order, 1 failed,
2 a file, a setting or an option is wrong.

\b
  feedmill run receiver -c feed.yaml --feed default/binance-spot --shard 0
  feedmill run distributor -c feed.yaml --feed default/binance-spot --shard 0
  feedmill run processor -c feed.yaml --pipeline default/main
  feedmill run accounts -c feed.yaml --pipeline default/main --kek-file kek
  feedmill run maintenance -c feed.yaml --pipeline default/main
  feedmill run notify -c feed.yaml --pipeline default/main --secrets-dir secrets --processes .feedmill/run
  feedmill run backup -c feed.yaml --pipeline default/main --secrets-dir secrets
"""

app = typer.Typer(
    no_args_is_help=True,
    help=HELP,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

BAD_CONFIG = 2
"""Exit code: a file or a setting is wrong; starting again without a change is of no use."""

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
_REPLICA = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
Named = TypeVar("Named", ExchangeFeed, FeedPipeline)


class LogLevel(StrEnum):
    """Least weight of a log line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Config = Annotated[
    list[Path],
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="File or folder with the resources (repeat for more).",
        show_default=False,
    ),
]
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


def _refuse(message: str) -> NoReturn:
    typer.echo(redact(message), err=True)
    raise typer.Exit(BAD_CONFIG)


def _key(text: str, option: str) -> Key:
    namespace, _, name = text.rpartition("/")
    if not name or "/" in namespace or text.startswith("/"):
        _refuse(f"{option} {text!r}: write NAMESPACE/NAME, such as default/btc")
    return namespace or "default", name


def _load(config: list[Path], main: str) -> tuple[Texts, Resources]:
    """``main``: the module of the service, which is imported while the manifests are checked."""
    read = read_files(config)
    try:
        return read, load_checked(read, warm=main)
    except ResourceError as error:
        _refuse(str(error))
    except CheckFailed as error:
        typer.echo(redact(str(error)), err=True)
        raise typer.Exit(FAILED) from None


def _pick(found: dict[Key, Named], text: str, option: str) -> Named:
    item = found.get(_key(text, option))
    if item is None:
        names = sorted("/".join(key) for key in found)
        _refuse(f"{option} {text!r}: the files hold none of that name: {choose(text, names)}")
    return item


def _check_replica(replica: str) -> str:
    if not _REPLICA.fullmatch(replica):
        _refuse(f"--replica {replica!r}: write lower-case letters, digits and '-', such as r0")
    return replica


@dataclass(frozen=True, slots=True)
class _Options:
    """What all services are given alike."""

    config: list[Path]
    secrets_dir: Path | None
    host: str
    port: int
    port_file: Path | None
    level: LogLevel | None
    reload: bool


def _run(role: str, main: Main, options: _Options, read: Texts, worked_for: ExchangeFeed | FeedPipeline,
         pipeline: FeedPipeline, *which: object) -> NoReturn:  # fmt: skip
    """``worked_for``: whose log level counts; ``which``: one of its processes this is, for traces and log."""
    servers = _SERVERS[role]
    try:
        redis_url, database_url = resolve_urls(pipeline, os.environ, options.secrets_dir, servers)
    except ConfigError as error:
        _refuse(str(error))
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
            _refuse(str(error))

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


def _feed_and_pipeline(resources: Resources, feed: str, shard: int) -> tuple[ExchangeFeed, FeedPipeline]:
    found = _pick(resources.feeds, feed, "--feed")
    try:
        shard_symbols(found, shard)
    except PlanError as error:
        _refuse(f"--shard {shard}: {error}")
    return found, resources.pipeline_of(found)


@app.command()
def receiver(
    config: Config,
    feed: FeedName,
    shard: Shard,
    replica: Annotated[
        str, typer.Option("--replica", metavar="NAME", help="Name of this one among the shard's receivers.")
    ] = "r0",
    spill_dir: Annotated[
        Path | None,
        typer.Option(
            "--spill-dir",
            metavar="DIR",
            help="Folder of this receiver alone, for frames while Redis is away or full; it outlives the process. "
            "Without it they stay in memory.",
        ),
    ] = None,
    secrets_dir: SecretsFolder = None,
    health_host: HealthHost = "127.0.0.1",
    health_port: HealthPort = 0,
    port_file: PortFile = None,
    log_level: Level = None,
    reload: Reload = True,
) -> None:
    """Capture: exchange WebSocket to the raw stream."""
    read, resources = _load(config, "feedmill.receiver.main")
    found, pipeline = _feed_and_pipeline(resources, feed, shard)
    name = _check_replica(replica)

    from feedmill.receiver.main import main as receive

    async def main(context: ServiceContext) -> None:
        await receive(context, found, pipeline, shard, name, spill_dir)

    options = _Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    _run("receiver", main, options, read, found, pipeline, shard, name)


@app.command()
def distributor(
    config: Config,
    feed: FeedName,
    shard: Shard,
    secrets_dir: SecretsFolder = None,
    health_host: HealthHost = "127.0.0.1",
    health_port: HealthPort = 0,
    port_file: PortFile = None,
    log_level: Level = None,
    reload: Reload = True,
) -> None:
    """Order, complete and normalise: raw stream to events stream."""
    read, resources = _load(config, "feedmill.distributor.main")
    found, pipeline = _feed_and_pipeline(resources, feed, shard)

    from feedmill.distributor.main import main as distribute

    async def main(context: ServiceContext) -> None:
        await distribute(context, found, pipeline, shard)

    options = _Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    _run("distributor", main, options, read, found, pipeline, shard)


@app.command()
def processor(
    config: Config,
    pipeline: PipelineName,
    replica: Annotated[
        str, typer.Option("--replica", metavar="NAME", help="Name of this one among the processors.")
    ] = "r0",
    secrets_dir: SecretsFolder = None,
    health_host: HealthHost = "127.0.0.1",
    health_port: HealthPort = 0,
    port_file: PortFile = None,
    log_level: Level = None,
    reload: Reload = True,
) -> None:
    """Store: events streams of the pipeline to PostgreSQL."""
    read, resources = _load(config, "feedmill.processor.main")
    found = _pick(resources.pipelines, pipeline, "--pipeline")
    feeds = resources.feeds_of(found)
    name = _check_replica(replica)

    from feedmill.processor.main import main as process

    async def main(context: ServiceContext) -> None:
        await process(context, found, feeds, name)

    options = _Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    _run("processor", main, options, read, found, found, name)


@app.command()
def accounts(
    config: Config,
    pipeline: PipelineName,
    replica: Annotated[
        str, typer.Option("--replica", metavar="NAME", help="Name of this one among the pool's members.")
    ] = "r0",
    kek_file: Annotated[
        Path | None,
        typer.Option(
            "--kek-file",
            metavar="FILE",
            envvar="FEEDMILL_KEK_FILE",
            help="Key-encryption keys of the credential store, one a line: ID and 32 bytes as base64.",
            show_default="spec.accounts.keyEncryptionSecretRef",
        ),
    ] = None,
    secrets_dir: SecretsFolder = None,
    health_host: HealthHost = "127.0.0.1",
    health_port: HealthPort = 0,
    port_file: PortFile = None,
    log_level: Level = None,
    reload: Reload = True,
) -> None:
    """Listen to accounts, and store their orders, fills and balances: one member of the pipeline's pool."""
    read, resources = _load(config, "feedmill.pool.main")
    found = _pick(resources.pipelines, pipeline, "--pipeline")
    name = _check_replica(replica)

    from feedmill.pool.main import main as pool

    async def main(context: ServiceContext) -> None:
        await pool(context, found, resources.accounts_of(found), name, kek_file, secrets_dir)

    options = _Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    _run("accounts", main, options, read, found, found, name)


@app.command()
def maintenance(
    config: Config,
    pipeline: PipelineName,
    once: Annotated[
        bool, typer.Option("--once", help="One run, then end: exit code 0, or 1 with the reason in the log.")
    ] = False,
    secrets_dir: SecretsFolder = None,
    health_host: HealthHost = "127.0.0.1",
    health_port: HealthPort = 0,
    port_file: PortFile = None,
    log_level: Level = None,
    reload: Reload = True,
) -> None:
    """Keep PostgreSQL and Redis in order: partitions, retention, checks, streams of feeds that are gone."""
    read, resources = _load(config, "feedmill.general.maintenance.service")
    found = _pick(resources.pipelines, pipeline, "--pipeline")

    from feedmill.general.maintenance.service import main as maintain
    from feedmill.general.maintenance.service import once as maintain_once

    async def main(context: ServiceContext) -> None:
        await (maintain_once if once else maintain)(context, found, resources)

    options = _Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload and not once)
    _run("maintenance", main, options, read, found, found)


@app.command()
def notify(
    config: Config,
    pipeline: PipelineName,
    processes: Annotated[
        str | None,
        typer.Option(
            "--processes",
            metavar="PLACE",
            help="Where the pipeline's processes serve their health: HOST:PORT with all their addresses, or a folder "
            "of port files. Without it only what PostgreSQL shows is told.",
            show_default=False,
        ),
    ] = None,
    secrets_dir: SecretsFolder = None,
    health_host: HealthHost = "127.0.0.1",
    health_port: HealthPort = 0,
    port_file: PortFile = None,
    log_level: Level = None,
    reload: Reload = True,
) -> None:
    """Tell people by Telegram what is wrong, as spec.notifications says."""
    read, resources = _load(config, "feedmill.general.notify.main")
    found = _pick(resources.pipelines, pipeline, "--pipeline")

    from feedmill.general.notify.main import main as tell
    from feedmill.general.notify.processes import Place
    from feedmill.general.notify.settings import notify_settings, read_token

    try:
        settings = notify_settings(resources, found)
        token = read_token(settings, secrets_dir)
        place = None if processes is None else Place.parse(processes)
    except ConfigError as error:
        _refuse(str(error))

    async def main(context: ServiceContext) -> None:
        await tell(context, found, settings, token, secrets_dir, place)

    options = _Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    _run("notify", main, options, read, found, found)


@app.command()
def backup(
    config: Config,
    pipeline: PipelineName,
    spool_dir: Annotated[
        Path,
        typer.Option(
            "--spool-dir",
            metavar="DIR",
            help="Folder of this process alone, in which the database's log waits for its upload.",
        ),
    ] = Path(".feedmill/backup-spool"),
    schedules: Annotated[
        bool,
        typer.Option(
            "--schedules", help="Make backups and drills by their schedules too, as CronJobs do on a cluster."
        ),
    ] = False,
    secrets_dir: SecretsFolder = None,
    health_host: HealthHost = "127.0.0.1",
    health_port: HealthPort = 0,
    port_file: PortFile = None,
    log_level: Level = None,
    reload: Reload = True,
) -> None:
    """Back PostgreSQL up continuously: its log to the destination as it is written, base backups on schedule."""
    read, resources = _load(config, "feedmill.general.backup.service")
    found = _pick(resources.pipelines, pipeline, "--pipeline")

    from feedmill.general.backup.service import check
    from feedmill.general.backup.service import main as watch

    try:
        check(found, secrets_dir, schedules=schedules)
    except ConfigError as error:
        _refuse(str(error))
    commands = [part for path in config for part in ("--config", str(path))] + ["--pipeline", "/".join(found.key)]
    commands += [] if secrets_dir is None else ["--secrets-dir", str(secrets_dir)]

    async def main(context: ServiceContext) -> None:
        await watch(context, found, secrets_dir, spool_dir.expanduser().absolute(), commands if schedules else None)

    options = _Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    _run("backup", main, options, read, found, found)

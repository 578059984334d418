"""``feedmill run ROLE``: one service process, as local mode and Kubernetes start it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feedmill.cli.options import Files
from feedmill.cli.run_process import (
    FeedName,
    HealthHost,
    HealthPort,
    Level,
    Options,
    PipelineName,
    PortFile,
    Reload,
    SecretsFolder,
    Shard,
    carry_out,
    check_replica,
    feed_and_pipeline,
    load,
    pick,
    refuse,
)
from feedmill.shared.config import ConfigError
from feedmill.shared.service import ServiceContext

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


@app.command()
def receiver(
    config: Files,
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
    read, resources = load(config, "feedmill.receiver.main")
    found, pipeline = feed_and_pipeline(resources, feed, shard)
    name = check_replica(replica)

    from feedmill.receiver.main import main as receive

    async def main(context: ServiceContext) -> None:
        await receive(context, found, pipeline, shard, name, spill_dir)

    options = Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    carry_out("receiver", main, options, read, found, pipeline, shard, name)


@app.command()
def distributor(
    config: Files,
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
    read, resources = load(config, "feedmill.distributor.main")
    found, pipeline = feed_and_pipeline(resources, feed, shard)

    from feedmill.distributor.main import main as distribute

    async def main(context: ServiceContext) -> None:
        await distribute(context, found, pipeline, shard)

    options = Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    carry_out("distributor", main, options, read, found, pipeline, shard)


@app.command()
def processor(
    config: Files,
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
    read, resources = load(config, "feedmill.processor.main")
    found = pick(resources.pipelines, pipeline, "--pipeline")
    feeds = resources.feeds_of(found)
    name = check_replica(replica)

    from feedmill.processor.main import main as process

    async def main(context: ServiceContext) -> None:
        await process(context, found, feeds, name)

    options = Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    carry_out("processor", main, options, read, found, found, name)


@app.command()
def accounts(
    config: Files,
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
    read, resources = load(config, "feedmill.pool.main")
    found = pick(resources.pipelines, pipeline, "--pipeline")
    name = check_replica(replica)

    from feedmill.pool.main import main as pool

    async def main(context: ServiceContext) -> None:
        await pool(context, found, resources.accounts_of(found), name, kek_file, secrets_dir)

    options = Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    carry_out("accounts", main, options, read, found, found, name)


@app.command()
def maintenance(
    config: Files,
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
    read, resources = load(config, "feedmill.general.maintenance.service")
    found = pick(resources.pipelines, pipeline, "--pipeline")

    from feedmill.general.maintenance.service import main as maintain
    from feedmill.general.maintenance.service import once as maintain_once

    async def main(context: ServiceContext) -> None:
        await (maintain_once if once else maintain)(context, found, resources)

    options = Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload and not once)
    carry_out("maintenance", main, options, read, found, found)


@app.command()
def notify(
    config: Files,
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
    read, resources = load(config, "feedmill.general.notify.main")
    found = pick(resources.pipelines, pipeline, "--pipeline")

    from feedmill.general.notify.main import main as tell
    from feedmill.general.notify.processes import Place
    from feedmill.general.notify.settings import notify_settings, read_token

    try:
        settings = notify_settings(resources, found)
        token = read_token(settings, secrets_dir)
        place = None if processes is None else Place.parse(processes)
    except ConfigError as error:
        refuse(str(error))

    async def main(context: ServiceContext) -> None:
        await tell(context, found, settings, token, secrets_dir, place)

    options = Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    carry_out("notify", main, options, read, found, found)


@app.command()
def backup(
    config: Files,
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
    read, resources = load(config, "feedmill.general.backup.service")
    found = pick(resources.pipelines, pipeline, "--pipeline")

    from feedmill.general.backup.service import check
    from feedmill.general.backup.service import main as watch

    try:
        check(found, secrets_dir, schedules=schedules)
    except ConfigError as error:
        refuse(str(error))
    commands = [part for path in config for part in ("--config", str(path))] + ["--pipeline", "/".join(found.key)]
    commands += [] if secrets_dir is None else ["--secrets-dir", str(secrets_dir)]

    async def main(context: ServiceContext) -> None:
        await watch(context, found, secrets_dir, spool_dir.expanduser().absolute(), commands if schedules else None)

    options = Options(config, secrets_dir, health_host, health_port, port_file, log_level, reload)
    carry_out("backup", main, options, read, found, found)

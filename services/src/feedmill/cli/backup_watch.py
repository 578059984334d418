"""``feedmill backup watch``: the continuous backup in a terminal, as feedmill run backup is in a pod."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Annotated

import typer

from feedmill.cli.backup_run import Chosen, Config, HealthHost, HealthPort, end_with, logger, opened_target
from feedmill.cli.common import BAD_CONFIG, DATA_DIR, DataDir, fail, folder, told
from feedmill.cli.query import PipelineName, SecretsFolder
from feedmill.general.backup.status import RunStatus


@told
def watch(
    config: Config,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
    spool_dir: Annotated[
        Path | None,
        typer.Option(
            "--spool-dir",
            metavar="DIR",
            help="Where the log waits for its upload.",
            show_default="backup-spool in --data-dir",
        ),
    ] = None,
    data_dir: DataDir = DATA_DIR,
    health_host: HealthHost = "127.0.0.1",
    health_port: HealthPort = None,
) -> None:
    """Receive the database's log and upload each file of it as soon as it is whole, until Ctrl-C; make base backups by
    spec.backup.continuous.baseSchedule, and one at once where the log hangs on none.

    feedmill up and the operator run this where spec.backup.continuous.enabled is true. The server must allow a
    replication connection; where it does not, this says so and tries again every minute. How far it is: --health-port.

    \b
    feedmill backup watch -c feed.yaml --secrets-dir secrets
    """
    chosen = Chosen.of(config, pipeline, secrets_dir, data_dir)
    spec = chosen.pipeline.spec.backup
    if spec is not None and not spec.continuous.enabled:
        fail("spec.backup.continuous.enabled is false: set it to true", BAD_CONFIG)
    log = logger("backup", level="info")
    place = (spool_dir or folder(data_dir) / "backup-spool" / "watch").expanduser().absolute()

    async def work(url: str) -> None:
        from feedmill.general.backup.watch import Watch
        from feedmill.shared.database_url import DatabaseUrl

        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError, RuntimeError):  # Only the main thread may.
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with opened_target(chosen) as (target, _ring):
            await Watch(DatabaseUrl(url), target, place, log).run(stop)

    end_with("backup watch", RunStatus(None), chosen.url, work, health_host, health_port)

"""What the commands of ``feedmill backup`` share: their options, the run around the work, and how it is shown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from feedmill.cli.common import BAD_CONFIG, fail, folder, human_bytes
from feedmill.cli.manifests import one_pipeline
from feedmill.cli.query import database
from feedmill.general.backup.status import RunStatus
from feedmill.resources.load import load_files
from feedmill.shared.clock import SECOND
from feedmill.shared.config import read_setting, resolve_urls

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from feedmill.accounts.keyring import Keyring
    from feedmill.general.backup.target import Target
    from feedmill.processor.settings import ProcessorSettings
    from feedmill.resources.collection import Resources
    from feedmill.resources.pipeline import FeedPipeline

T = TypeVar("T")

Config = Annotated[
    list[Path],
    typer.Option("--config", "-c", metavar="FILE", help="The manifests, spec.backup among them.", show_default=False),
]
StatusFile = Annotated[
    Path | None,
    typer.Option("--status-file", metavar="FILE", help="Write there, as JSON, what the run is doing and how it ended."),
]
HealthHost = Annotated[str, typer.Option("--health-host", metavar="ADDRESS", help="Address that /health is served on.")]
HealthPort = Annotated[
    int | None,
    typer.Option(
        "--health-port", min=0, max=65535, metavar="PORT", help="Serve /health and /metrics on it.", show_default="no"
    ),
]
BackupId = Annotated[
    str | None,
    typer.Option(
        "--backup", metavar="ID", help="The backup, as list shows it.", show_default="the newest that is good"
    ),
]


@dataclass(frozen=True, slots=True)
class Chosen:
    """One pipeline of the manifests."""

    resources: Resources
    pipeline: FeedPipeline
    secrets_dir: Path | None
    data_dir: Path

    @classmethod
    def of(cls, config: list[Path], name: str | None, secrets_dir: Path | None, data_dir: Path) -> Chosen:
        """Raises ResourceError; ends the command where the name is none."""
        resources = load_files(config, local=True)
        return cls(resources, one_pipeline(resources, name), secrets_dir, data_dir)

    def settings(self) -> ProcessorSettings:
        """Of its processors."""
        from feedmill.processor.settings import processor_settings

        return processor_settings(self.pipeline, self.resources.feeds_of(self.pipeline), "")

    def target(self) -> Target:
        """Raises ConfigError."""
        from feedmill.general.backup.target import open_target

        return open_target(self.pipeline, self.secrets_dir)

    def _is_elsewhere(self) -> bool:
        """Whether the database is not the one in the data folder."""
        if read_setting(os.environ, "DATABASE_URL") is not None:
            return True
        return self.pipeline.spec.postgres.url_secret_ref is not None and self.secrets_dir is not None

    @contextlib.contextmanager
    def url(self) -> Iterator[str]:
        """Of the pipeline's database; a secret. That of the data folder is started for the time if it must be.

        Raises ConfigError, EmbeddedError.
        """
        if self._is_elsewhere():
            yield resolve_urls(self.pipeline, os.environ, self.secrets_dir, frozenset({"postgres"}))[1]
            return
        with database(self.data_dir) as (url, _):
            yield url

    @contextlib.contextmanager
    def url_if_any(self) -> Iterator[str]:
        """As :meth:`url`; empty where the data folder has no database."""
        if self._is_elsewhere() or (folder(self.data_dir) / "postgres" / "pgdata").is_dir():
            with self.url() as url:
                yield url
        else:
            yield ""

    @contextlib.contextmanager
    def empty_url(self) -> Iterator[str]:
        """As :meth:`url`, for a restore: that of the data folder is made where there is none.

        Raises DataDirInUse while feedmill up runs on it.
        """
        if self._is_elsewhere():
            yield resolve_urls(self.pipeline, os.environ, self.secrets_dir, frozenset({"postgres"}))[1]
            return
        from feedmill.local.embedded import EmbeddedPostgres

        with EmbeddedPostgres(folder(self.data_dir) / "postgres") as server:
            yield server.url


@contextlib.contextmanager
def no_database() -> Iterator[str]:
    """Of a command that asks the destination alone."""
    yield ""


@contextlib.asynccontextmanager
async def opened_target(chosen: Chosen) -> AsyncGenerator[tuple[Target, Keyring], None]:
    """The pipeline's target and its keys; closed at the end. Raises ConfigError."""
    target = await asyncio.to_thread(chosen.target)
    try:
        yield target, await target.ring()
    finally:
        await target.store.close()


def end_with(
    what: str,
    status: RunStatus,
    database_url: Callable[[], contextlib.AbstractContextManager[str]],
    work: Callable[[str], Awaitable[T]],
    host: str = "",
    port: int | None = None,
) -> T:
    """Carry out ``work`` with the URL until it ends or SIGTERM comes, tell its failure, and serve ``/health`` where a
    port is given.

    Errors that people can mend end the command with one line; the exit code is 2 where the configuration is wrong.
    """
    from feedmill.shared.dumps import forbid_dumps

    try:
        with database_url() as url:
            forbid_dumps()  # Not before: an embedded server that was started for this may keep its own limit.
            return asyncio.run(_until_stopped(work, url, status, host, port))
    except asyncio.CancelledError:
        status.failed("stopped before its end")
        fail(f"{what}: stopped before its end")
    except Exception as error:
        if isinstance(error, (typer.Exit, typer.Abort)):
            raise
        from feedmill.cli.backup_errors import exit_code, message  # Not before: it imports all that can fail.

        code = exit_code(error)
        status.failed(message(error))
        if code is None:
            raise
        fail(f"{what}: {message(error)}", code)


async def _until_stopped(
    work: Callable[[str], Awaitable[T]], url: str, status: RunStatus, host: str, port: int | None
) -> T:
    task = asyncio.current_task()
    assert task is not None
    if threading.current_thread() is threading.main_thread():  # Only there it is allowed.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with _health(status, host, port):
        return await work(url)


@contextlib.asynccontextmanager
async def _health(status: RunStatus, host: str, port: int | None) -> AsyncGenerator[None, None]:
    if port is None:
        yield
        return
    from feedmill.shared.health import Health, HealthServer

    health = Health("backup")
    health.detail("run", lambda: status.document)
    server = HealthServer(health, host, port)
    await server.start()
    try:
        yield
    finally:
        await server.stop()


def logger(name: str, *, level: str = "") -> Any:
    """Lines for whoever reads the log; on a terminal only what is wrong, since there is a progress bar."""
    from feedmill.shared.log import configure, get_logger

    configure(name, level=level or ("warning" if os.isatty(2) else "info"))
    return get_logger()


class Shown:
    """Progress for people: a bar on a terminal, a line every so often otherwise; and for programs (the status)."""

    def __init__(self, status: RunStatus, log: Any) -> None:
        self._status = status
        self._log = log
        self._bars: Bars | None = None
        self._task: Any = None
        self._what = ""
        self._told = 0.0

    def __enter__(self) -> Shown:
        if os.isatty(2):
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, what: str, done: int, expected: int) -> None:
        """As :data:`feedmill.general.backup.progress.Progress`."""
        self._status.progress(what, done, expected)
        if self._bars is not None:
            if what != self._what:
                self._what, self._task = what, self._bars.add_task(what, total=expected or None)
            self._bars.update(self._task, completed=done, total=max(expected, done) if expected else None)
            return
        from feedmill.shared.clock import monotonic

        if what != self._what or monotonic() - self._told >= LINE_EVERY:
            self._what, self._told = what, monotonic()
            share = f"{min(99, 100 * done // expected)} %" if expected else "not known"
            self._log.info("backup.progress", step=what, done=human_bytes(done), share=share)


LINE_EVERY = 30.0
"""Seconds between two lines of progress in a log."""


def parse_time(text: str, option: str) -> int:
    """A moment in UTC -> ns since the epoch; ends the command where it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text!r}: write a moment in UTC, such as 2026-11-25T03:00:00Z", BAD_CONFIG)
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return int(found.timestamp()) * SECOND + found.microsecond * 1000

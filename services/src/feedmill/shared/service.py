"""How a service process lives: settings, event loop, health server, signals, an orderly end.

A service is a coroutine function ``main(context)``. It runs until ``context.stop`` is set (SIGTERM, SIGINT), then
drains and returns; it is cancelled when it has not returned within its grace time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from feedmill import __version__
from feedmill.shared import log, metrics
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.dumps import forbid_dumps
from feedmill.shared.health import Health, HealthServer
from feedmill.shared.lean import settle
from feedmill.shared.redis.url import RedisUrl

if TYPE_CHECKING:
    from feedmill.resources.collection import Resources
    from feedmill.shared.reload import Origin
    from feedmill.shared.tracing import Sampling

FAILED, BAD_CONFIG = 1, 2
"""Exit codes; 0 = stopped in order."""
CLOSING = 2.0
"""Seconds an event loop that has done its work has to close."""


@dataclass(slots=True)
class ServiceContext:
    """What a service is given. ``redis_url`` and ``database_url`` are secrets: never log them. Both may become another
    while the process runs: hand the objects on, not what they hold."""

    service: str
    health: Health
    redis_url: RedisUrl
    database_url: DatabaseUrl
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    log: Any = None
    reconfigure: Callable[[Resources], Awaitable[None]] | None = None
    """Set by the service: takes newer resources up while it works, or raises a ValueError and has changed nothing."""


Main = Callable[[ServiceContext], Awaitable[None]]


def write_port_file(path: Path, port: int) -> None:
    """Tell the supervisor which port the health server got: written whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f"{port}\n")
    temporary.replace(path)


async def _run(
    service: str,
    main: Main,
    redis_url: RedisUrl,
    database_url: str,
    host: str,
    port: int,
    port_file: Path | None,
    grace: float,
    finish_log: Callable[[], None],
    origin: Origin | None,
    tracing: Sampling | None,
    names: Mapping[str, object],
) -> int:
    health = Health(service)
    if tracing is not None:
        health.detail("tracing", tracing.document)
    context = ServiceContext(service, health, redis_url, DatabaseUrl(database_url), log=log.get_logger())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, context.stop.set)
    health.detail("process", lambda: {"pid": os.getpid(), "version": __version__, **names})
    server = HealthServer(health, host, port)
    try:
        await server.start()
        if port_file is not None:
            write_port_file(port_file, server.port)
    except OSError as error:
        where, remedy = f"{host}:{port}", "choose another --health-host or --health-port, and a --port-file to write to"
        context.log.error("health.failed", listen=where, reason=str(error), remedy=remedy)
        await server.stop()
        return BAD_CONFIG
    aside = [asyncio.create_task(metrics.watch_loop_lag(), name="loop-lag")]
    if origin is not None:
        from feedmill.shared.reload import Reloader

        aside.append(asyncio.create_task(Reloader(origin, context, tracing).run(), name="reload"))
    work = asyncio.ensure_future(main(context))
    stopped = asyncio.create_task(context.stop.wait(), name="stop")
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            context.log.info("stopping", grace_seconds=grace)
            await asyncio.wait({work}, timeout=grace)
        overdue = not work.done()
        if overdue:
            context.log.warning("stop.overdue", grace_seconds=grace, action="cancel")
            work.cancel()
            await asyncio.wait({work}, timeout=2.0)
        if work.done() and not work.cancelled() and (failure := work.exception()) is not None:
            context.log.error("service.failed", exc_info=failure)
            return FAILED
        if not work.done():
            # The runner would cancel it again and wait for ever.
            context.log.error("stop.stuck", action="exit")
            _leave(FAILED, finish_log)
        if overdue:
            return FAILED
        context.log.info("stopped")
        return 0
    finally:
        stopped.cancel()
        for task in aside:
            task.cancel()
        await server.stop()


def _leave(code: int, finish_log: Callable[[], None]) -> None:
    """End the process here and now."""
    finish_log()
    os._exit(code)


def run_service(
    service: str,
    main: Main,
    *,
    redis_url: RedisUrl,
    database_url: str,
    host: str = "127.0.0.1",
    port: int = 0,
    port_file: Path | None = None,
    log_level: str = "info",
    grace: float = 20.0,
    origin: Origin | None = None,
    tracing: Sampling | None = None,
    names: Mapping[str, object] | None = None,
) -> int:
    """Run ``main`` to its end and return the process's exit code.

    0 = it returned, 1 = it raised, or did not return within ``grace`` seconds of a signal, 2 = the health server cannot
    listen there. ``origin``: where the settings came from, to follow their changes; ``tracing`` follows them too.
    ``names``: whose process this is (pipeline, feed, shard, instance), for ``/health``, and the last for the log.
    """
    forbid_dumps()
    finish_log = log.configure(service, level=log_level, instance=str((names or {}).get("instance", "")))
    settle()
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with runner:
        code = runner.run(
            _run(
                service,
                main,
                redis_url,
                database_url,
                host,
                port,
                port_file,
                grace,
                finish_log,
                origin,
                tracing,
                names or {},
            )
        )
        if tracing is not None:
            tracing.close()
        # A loop waits for its threads when it closes, and a name server that does not answer holds one for a minute and
        # more. All work is done by now: nothing of that is waited for.
        enough = threading.Timer(CLOSING, _leave, (code, finish_log))
        enough.daemon = True
        enough.start()
    enough.cancel()
    sys.stderr.flush()
    return code

"""``feedmill run backup``: the continuous backup of one pipeline, and where there are no CronJobs the schedules too."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedmill.general.backup import measures
from feedmill.general.backup.schedules import Schedules
from feedmill.general.backup.target import Target, open_target
from feedmill.general.backup.watch import Watch
from feedmill.resources.collection import Resources
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.config import ConfigError
from feedmill.shared.reload import same_pipeline
from feedmill.shared.service import ServiceContext


def check(pipeline: FeedPipeline, secrets_dir: Path | None, *, schedules: bool) -> None:
    """Raises ConfigError where there is nothing to do, or a Secret is missing."""
    open_target(pipeline, secrets_dir)
    spec = pipeline.spec.backup
    assert spec is not None
    if not schedules and not spec.continuous.enabled:
        raise ConfigError(
            f"FeedPipeline {'/'.join(pipeline.key)}: spec.backup.continuous.enabled is false, so nothing is to be "
            "received: set it to true, or add --schedules"
        )


class _Service:
    def __init__(
        self, context: ServiceContext, pipeline: FeedPipeline, secrets_dir: Path | None, spool_dir: Path,
        commands: Sequence[str] | None,
    ) -> None:  # fmt: skip
        self._context = context
        self._pipeline = pipeline
        self._secrets_dir = secrets_dir
        self._spool_dir = spool_dir
        self._commands = commands
        self._changed = asyncio.Event()
        self._watch: Watch | None = None
        self._schedules: Schedules | None = None

    async def reconfigure(self, resources: Resources) -> None:
        """Raises Refused, ConfigError; then the work goes on by the former one."""
        newer = same_pipeline(resources, self._pipeline.key)
        if newer.spec.backup == self._pipeline.spec.backup:
            return
        target = await asyncio.to_thread(open_target, newer, self._secrets_dir)
        await target.store.close()
        self._pipeline = newer
        self._changed.set()

    def ready(self) -> tuple[bool, str]:
        return (True, "") if self._watch is None else self._watch.ready()

    def document(self) -> dict[str, object]:
        found: dict[str, object] = {} if self._watch is None else self._watch.document()
        if self._schedules is not None:
            found["schedules"] = self._schedules.document()
        return found

    async def run(self) -> None:
        while not self._context.stop.is_set():
            self._changed.clear()
            target = await asyncio.to_thread(open_target, self._pipeline, self._secrets_dir)
            try:
                await self._work(target)
            finally:
                self._watch, self._schedules = None, None
                await target.store.close()

    async def _work(self, target: Target) -> None:
        """Until it is to stop, or the spec is another one."""
        stop = asyncio.Event()
        log, spec = self._context.log, target.spec
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._context.stop.wait(), name="stop"),
            asyncio.create_task(self._changed.wait(), name="changed"),
        ]
        watching: asyncio.Task[Any] | None = None
        measures.streaming.set(math.nan)
        if spec.continuous.enabled and not spec.suspend:
            self._watch = Watch(self._context.database_url, target, self._spool_dir, log)
            watching = asyncio.create_task(self._watch.run(stop), name="continuous backup")
            tasks.append(watching)
        if self._commands is not None and not spec.suspend:
            self._schedules = Schedules(target, self._commands, log)
            tasks.append(asyncio.create_task(self._schedules.run(), name="schedules"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            stop.set()
            for task in tasks:
                if task is not watching:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def main(
    context: ServiceContext,
    pipeline: FeedPipeline,
    secrets_dir: Path | None,
    spool_dir: Path,
    commands: Sequence[str] | None,
) -> None:
    """Run until ``context.stop`` is set. ``commands``: options of ``feedmill backup ...``, for the schedules; None:
    those are another's."""
    service = _Service(context, pipeline, secrets_dir, spool_dir, commands)
    context.reconfigure = service.reconfigure
    context.health.condition("backup", service.ready)
    context.health.detail("backup", service.document)
    await service.run()

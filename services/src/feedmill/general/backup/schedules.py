"""What a cluster's CronJobs do, where there are none: backups, drills and the deletion of old ones, when they are due.

Each is a process of ``feedmill backup``, the same that a Job runs, so its memory is gone afterwards. What was due while
nothing ran is made up for once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedmill.general.backup.catalogue import Catalogue, read_catalogue
from feedmill.general.backup.stores.base import StoreError
from feedmill.general.backup.target import Target
from feedmill.local.embedded.launch import launch_command
from feedmill.resources.types import Schedule
from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import SECOND, now_ns

AGAIN_AFTER = 1800.0
"""Seconds after which one that failed is tried again, unless it is due earlier."""
LOOK_EVERY = 60.0
"""Seconds: a machine that slept notices so late that something was due."""
_PATIENCE = 10.0
"""Seconds a process has to end when it is asked to."""


@dataclass(slots=True)
class Task:
    """One command, and when it is due (ns since the epoch, None = never)."""

    command: str
    schedule: Schedule
    due_ns: int | None
    failed: int = 0
    """Times in a row."""


class Schedules:
    """``run`` until cancelled. ``options`` follow each command: manifests, pipeline, Secrets."""

    def __init__(self, target: Target, options: Sequence[str], log: Any) -> None:
        self._target = target
        self._options = list(options)
        self._log = log
        self._tasks: list[Task] = []

    async def run(self) -> None:
        await self._plan()
        while True:
            now = now_ns()
            due = [task for task in self._tasks if task.due_ns is not None and task.due_ns <= now]
            for task in due:
                await self._do(task)
            if not due:
                upcoming = min((task.due_ns for task in self._tasks if task.due_ns is not None), default=None)
                wait = LOOK_EVERY if upcoming is None else (upcoming - now) / SECOND
                await asyncio.sleep(min(max(wait, 0.05), LOOK_EVERY))

    def document(self) -> dict[str, Any]:
        """Section ``schedules`` of ``/health``."""
        return {task.command: {"nextNs": task.due_ns, "failedInARow": task.failed} for task in self._tasks}

    async def _plan(self) -> None:
        """See at the destination what was done last."""
        backoff = Backoff(2.0, 300.0, floor=1.0)
        while True:
            try:
                catalogue = await read_catalogue(self._target.store, self._target.names)
            except StoreError as error:
                wait = backoff.next()
                self._log.warning("backup.destination_away", error=str(error), retry_in=round(wait, 1))
                await asyncio.sleep(wait)
            else:
                self._tasks = first_tasks(self._target, catalogue, now_ns())
                return

    async def _do(self, task: Task) -> None:
        good = await self._command(task.command)
        now = now_ns()
        task.due_ns = task.schedule.next_after(now, self._target.spec.time_zone)
        task.failed = 0 if good else task.failed + 1
        if not good:
            again = now + int(AGAIN_AFTER * SECOND)
            task.due_ns = again if task.due_ns is None else min(task.due_ns, again)
        elif task.command == "run":
            await self._command("prune")

    async def _command(self, name: str) -> bool:
        command = [sys.executable, "-m", "feedmill.cli.main", "backup", name, *self._options]
        process = await asyncio.create_subprocess_exec(
            *launch_command(command, signal_number=signal.SIGTERM), stdin=asyncio.subprocess.DEVNULL
        )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                await _stop(process)
        if code != 0:
            self._log.warning("backup.command_failed", command=f"backup {name}", exit_code=code)
        return code == 0


def first_tasks(target: Target, catalogue: Catalogue, now: int) -> list[Task]:
    """What is due, as the destination has it: a backup at once where there is none, a drill where one was missed."""
    spec = target.spec
    newest = catalogue.newest("logical")
    made_ns = 0 if newest is None else newest.manifest.started_ns
    tasks = [Task("run", spec.schedule, spec.schedule.next_after(made_ns, spec.time_zone) if made_ns else now)]
    if not spec.verify.suspend:
        drilled_ns = max((drill.started_ns for _, drill in catalogue.drills), default=now)
        tasks.append(Task("verify", spec.verify.schedule, spec.verify.schedule.next_after(drilled_ns, spec.time_zone)))
    return tasks


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_PATIENCE):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

"""One supervised service process: start, watch, start again with back-off, stop within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from feedmill.local.embedded.launch import launch_command
from feedmill.local.logs import Echo, ServiceLog
from feedmill.shared.backoff import Backoff

BAD_CONFIG = 2
"""Exit code of a service whose configuration is wrong: starting it again changes nothing."""
CRASH_LOOP_ENDS = 5
"""This many ends within ``CRASH_LOOP_WINDOW`` seconds are a crash loop."""
CRASH_LOOP_WINDOW = 120.0
CRASH_LOOP_OVER = 10.0
"""Seconds of life after which it is out of the loop."""


class State(StrEnum):
    WAITING = "waiting"
    """Not started yet."""
    STARTING = "starting"
    """The process runs; its health server does not answer yet."""
    RUNNING = "running"
    BACKOFF = "backoff"
    """Ended by itself; will be started again at ``next_start``."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    """Its configuration is wrong: not started again."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """``command``: program (absolute path) and arguments, no secrets. ``environment``: whole, secrets allowed."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    """Working directory."""
    log_file: Path
    port_file: Path | None = None
    """Where the process writes the port of its health server; None when it has none."""
    role: str = ""
    grace: float = 25.0
    """Seconds between SIGTERM and SIGKILL."""
    backoff_base: float = 0.5
    backoff_cap: float = 30.0
    stable_after: float = 30.0
    """Seconds of life after which the next end counts as the first one again."""


class ServiceProcess:
    """Supervises one process from ``start`` to ``stop``. Use from the main thread's event loop."""

    def __init__(self, spec: ProcessSpec, *, echo: Echo | None = None) -> None:
        self.spec = spec
        self.name = spec.name
        self.state = State.WAITING
        self.restarts = 0
        self.port: int | None = None
        self.last_exit: str | None = None
        self.next_start: float | None = None
        """Monotonic seconds, in state backoff."""
        self.forced = False
        """It had to be killed because it did not stop within its grace."""
        self.log = ServiceLog(spec.name, spec.log_file, echo=echo)
        self._process: asyncio.subprocess.Process | None = None
        self._started_at: float | None = None
        self._ends: deque[float] = deque(maxlen=CRASH_LOOP_ENDS)
        self._backoff = Backoff(spec.backoff_base, spec.backoff_cap, random_source=random.Random())
        self._stop = asyncio.Event()
        self._grace = spec.grace
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    # reading
    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def uptime(self) -> float | None:
        """Seconds since this process was started, None while there is none."""
        return None if self._process is None or self._started_at is None else time.monotonic() - self._started_at

    @property
    def crash_loop(self) -> bool:
        if len(self._ends) < CRASH_LOOP_ENDS or time.monotonic() - self._ends[0] > CRASH_LOOP_WINDOW:
            return False
        if self.state is State.RUNNING:
            return (self.uptime or 0.0) < CRASH_LOOP_OVER
        return self.state in (State.BACKOFF, State.STARTING)

    # acting
    def start(self) -> None:
        """Begin supervising; does nothing when it has begun."""
        if self._task is None:
            self._task = asyncio.create_task(self._supervise(), name=f"supervise-{self.name}")

    async def stop(self, grace: float | None = None) -> None:
        """SIGTERM, wait ``grace`` seconds, SIGKILL; returns when the process is gone. Safe in every state."""
        if grace is not None:
            self._grace = grace
        self._stop.set()
        if self._task is None:
            self._set(State.STOPPED)
            return
        # Waiting, not awaiting: a cancelled caller must not cancel the supervision midway.
        await asyncio.wait({self._task})

    def hurry(self) -> None:
        """Give up waiting for an orderly end: SIGKILL now if it is stopping or when it will."""
        self._hurry.set()
        self._stop.set()

    def signal(self, number: int) -> bool:
        """Send a signal to the process; False when there is none."""
        if self._process is None or self._process.returncode is not None:
            return False
        self._process.send_signal(number)
        return True

    async def up(self) -> bool:
        """Wait until its health server has a port (True), or it will not come up by itself (False)."""
        while True:
            if self.state is State.RUNNING:
                return True
            if self.state in (State.FAILED, State.STOPPED, State.STOPPING) or self.crash_loop:
                return False
            self._changed.clear()
            await self._changed.wait()

    # supervision
    def _set(self, state: State) -> None:
        self.state = state
        self._changed.set()

    async def _supervise(self) -> None:
        try:
            while not self._stop.is_set():
                self._set(State.STARTING)
                began = time.monotonic()
                code = await self._run_once()
                if self._stop.is_set():
                    break
                if code == BAD_CONFIG:
                    self._set(State.FAILED)
                    await self._stop.wait()
                    break
                if time.monotonic() - began >= self.spec.stable_after:
                    self._backoff.reset()
                self._ends.append(time.monotonic())
                delay = self._backoff.next()
                self.next_start = time.monotonic() + delay
                self._set(State.BACKOFF)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), delay)
                self.next_start = None
                if not self._stop.is_set():
                    self.restarts += 1
        finally:
            self.port = None
            self._set(State.STOPPED)
            self.log.close()

    async def _run_once(self) -> int | None:
        """One life of the process; returns its exit code, None when it could not be started."""
        if self.spec.port_file is not None:
            self.spec.port_file.unlink(missing_ok=True)
        command = launch_command(list(self.spec.command), signal_number=signal.SIGTERM)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self.spec.folder,
                env=dict(self.spec.environment),
                start_new_session=True,
                limit=1 << 20,
            )
        except OSError as error:
            self.last_exit = f"cannot be started: {error.strerror or error}"
            self.log.last_error = self.last_exit
            return None
        self._process = process
        self._started_at = time.monotonic()
        helpers = [asyncio.create_task(self._pump(process), name=f"log-{self.name}")]
        port = asyncio.create_task(self._await_port(), name=f"port-{self.name}")
        try:
            await self._until_end(process)
            return process.returncode
        finally:
            port.cancel()
            if process.returncode is None:
                _kill(process)
            # The kill above makes this short; a cancelled supervisor still reaps its child.
            await asyncio.shield(process.wait())
            await asyncio.wait(helpers, timeout=1.0)
            for task in helpers:
                task.cancel()
            await asyncio.gather(port, *helpers, return_exceptions=True)
            self.port = None
            self._process = None
            self.last_exit = _describe(process.returncode)

    async def _until_end(self, process: asyncio.subprocess.Process) -> None:
        exited = asyncio.create_task(process.wait())
        asked = asyncio.create_task(self._stop.wait())
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait({exited, asked}, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                return
            self._set(State.STOPPING)
            if not self._hurry.is_set():
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await asyncio.wait({exited, hurry}, timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
            if not exited.done():
                self.forced = True
                _kill(process)
                await exited
        finally:
            for task in (exited, asked, hurry):
                task.cancel()
            await asyncio.gather(exited, asked, hurry, return_exceptions=True)

    async def _pump(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    self.log.write(error.partial)
                return
            except asyncio.LimitOverrunError as error:
                line = await process.stdout.readexactly(error.consumed)
            self.log.write(line)

    async def _await_port(self) -> None:
        if self.spec.port_file is None:
            self._set(State.RUNNING)
            return
        while True:
            with contextlib.suppress(OSError, ValueError):
                self.port = int(self.spec.port_file.read_text())
                if self.state is State.STARTING:
                    self._set(State.RUNNING)
                return
            await asyncio.sleep(0.05)


def _kill(process: asyncio.subprocess.Process) -> None:
    """The process and whatever it started in its session's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _describe(code: int | None) -> str:
    if code is None:
        return "gone"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"

"""Start programs that end with us: the parent's side of ``_launch.py``."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")
LAUNCHER = Path(__file__).with_name("_launch.py")


class Privilege(Enum):
    """How a program that refuses root is started."""

    KEEP = "keep"
    """As whoever we are."""
    USERNS = "userns"
    """We are root: as ``nobody`` inside a user namespace in which our own uid is mapped to it."""
    SETUID = "setuid"
    """We are root and user namespaces are forbidden (default Docker seccomp): as the real ``nobody``."""


NOBODY = 65534


@cache
def drop_root() -> Privilege:
    """How to start a server that refuses root, found by trying."""
    if os.geteuid() != 0:
        return Privilege.KEEP
    if sys.platform != "linux":
        return Privilege.SETUID
    command = launch_command([sys.executable, "-I", "-S", "-c", ""], signal_number=15, privilege=Privilege.USERNS)
    tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)  # noqa: S603
    return Privilege.USERNS if tried.returncode == 0 else Privilege.SETUID


def launch_command(
    program: Sequence[str],
    *,
    signal_number: int,
    privilege: Privilege = Privilege.KEEP,
    watch: int | None = None,
) -> list[str]:
    """The command line that starts ``program`` (absolute path first), sent ``signal_number`` when we end."""
    command = [sys.executable, "-I", "-S", str(LAUNCHER), "--parent", str(os.getpid()), "--signal", str(signal_number)]
    if privilege is Privilege.USERNS:
        command += ["--userns"]
    elif privilege is Privilege.SETUID:
        command += ["--uid", str(NOBODY), "--gid", str(NOBODY)]
    if watch is not None:
        command += ["--watch", str(watch)]
    return [*command, "--", *program]


@dataclass(slots=True)
class Launched:
    """A started program. ``close`` after it has ended."""

    process: subprocess.Popen[bytes]
    _watch: int | None

    def close(self) -> None:
        if self._watch is not None:
            os.close(self._watch)
            self._watch = None


def launch(
    program: Sequence[str],
    *,
    signal_number: int,
    output: IO[bytes],
    cwd: Path,
    environment: Mapping[str, str],
    privilege: Privilege = Privilege.KEEP,
    keep_fds: Sequence[int] = (),
    force_watch: bool = False,
) -> Launched:
    """Start ``program`` in its own session (a terminal's Ctrl-C does not reach it), output to ``output``.

    Raises OSError when it cannot be started. ``keep_fds`` stay open in it. ``force_watch`` uses the pipe instead of
    PDEATHSIG, as on systems other than Linux.
    """
    watch_read = watch_write = None
    if force_watch or sys.platform != "linux":
        watch_read, watch_write = os.pipe()
    command = launch_command(program, signal_number=signal_number, privilege=privilege, watch=watch_read)
    fds = [*keep_fds, *([watch_read] if watch_read is not None else [])]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
            pass_fds=fds,
        )

    try:
        process = in_lasting_thread(start)
    finally:
        if watch_read is not None:
            os.close(watch_read)
    return Launched(process, watch_write)


_jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
_spawner: threading.Thread | None = None
_spawner_lock = threading.Lock()


def in_lasting_thread(job: Callable[[], T]) -> T:
    """Run ``job`` in a thread that lives as long as the process.

    PDEATHSIG fires when the *thread* that started the child ends, so a worker of ``asyncio.to_thread`` must not be it.
    """
    global _spawner
    if threading.current_thread() is threading.main_thread():
        return job()
    with _spawner_lock:
        if _spawner is None or not _spawner.is_alive():
            _spawner = threading.Thread(target=_spawn_forever, name="feedmill-spawner", daemon=True)
            _spawner.start()
    future: Future[T] = Future()
    _jobs.put((job, future))
    return future.result()


def _spawn_forever() -> None:
    while True:
        job, future = _jobs.get()
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)

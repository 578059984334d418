"""What both embedded servers share: start, readiness by connecting, bounded stop, kill, and clear failures."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, ClassVar

from feedmill.local.embedded import files
from feedmill.local.embedded.errors import EmbeddedError
from feedmill.local.embedded.launch import Launched, Privilege, launch

PORT_TRIES = 5


class EmbeddedServer(ABC):
    """One server process on 127.0.0.1 whose data lives in ``data_dir``. Usable as a context manager."""

    what: ClassVar[str]
    """For messages: Redis, PostgreSQL."""
    stop_signals: ClassVar[Sequence[tuple[int, float]]]
    """(signal, seconds to wait), in order; SIGKILL to the whole group follows."""
    parent_death_signal: ClassVar[int]

    def __init__(self, data_dir: Path | str, *, port: int = 0, start_timeout: float = 60.0) -> None:
        self.data_dir = Path(data_dir).expanduser().absolute()
        self.host = "127.0.0.1"
        self.port = port
        """0 until the first start when any free port was asked for; then it stays the same."""
        self.start_timeout = start_timeout
        self._wanted_port = port
        self._launched: Launched | None = None
        self._lock = files.DirLock(self.data_dir, self.what)
        self._guard = threading.RLock()

    # what a server must say
    @property
    @abstractmethod
    def url(self) -> str:
        """With its password: never print it."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data folder usable (first start) and check its version; raises EmbeddedError."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _probe(self) -> bool:
        """True when the server takes clients; False or OSError while it does not."""

    def _privilege(self) -> Privilege:
        return Privilege.KEEP

    def _environment(self) -> dict[str, str]:
        kept = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
        return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C", "TZ": "UTC"}

    # state
    @property
    def log_file(self) -> Path:
        return self.data_dir / f"{self.what.lower()}.log"

    def _open_log(self) -> IO[bytes]:
        """Where the server's output goes."""
        return self.log_file.open("ab")

    @property
    def pid(self) -> int | None:
        return self._launched.process.pid if self._launched is not None else None

    @property
    def running(self) -> bool:
        return self._launched is not None and self._launched.process.poll() is None

    @property
    def safe_url(self) -> str:
        """For people: no credentials."""
        return f"{self.host}:{self.port}"

    # life
    def start(self) -> None:
        """Start and wait until it answers; raises EmbeddedError (with the log's tail) or DataDirInUse.

        After ``kill`` or a crash it starts again on the same port with the same data.
        """
        with self._guard:
            if self.running:
                return
            self._forget()
            files.private_folder(self.data_dir)
            self._lock.acquire(timeout=30.0)
            try:
                self._start_locked()
            except BaseException:
                self._end(())
                raise

    def _start_locked(self) -> None:
        self._prepare()
        files.rotate(self.log_file)
        for attempt in range(1, PORT_TRIES + 1):
            if self.port == 0:
                self.port = files.choose_port(self.data_dir)
            elif not files.port_is_free(self.port):
                raise EmbeddedError(
                    f"{self.what}: port {self.port} on {self.host} is taken: stop what uses it, "
                    "or give another port (0 = any free one)"
                )
            at = self.log_file.stat().st_size if self.log_file.exists() else 0
            try:
                self._start_once(at)
            except EmbeddedError:
                # Somebody took the port between our look and the server's bind.
                taken = self._wanted_port == 0 and not files.port_is_free(self.port)
                if not taken or attempt == PORT_TRIES:
                    raise
                self._reap()
                self.port = 0
                continue
            (self.data_dir / "port").write_text(f"{self.port}\n")
            return

    def _start_once(self, log_start: int) -> None:
        assert self._lock.fd is not None
        with self._open_log() as output:
            self._launched = launch(
                self._command(),
                signal_number=self.parent_death_signal,
                output=output,
                cwd=self.data_dir,
                environment=self._environment(),
                privilege=self._privilege(),
                keep_fds=[self._lock.fd],
            )
        process = self._launched.process
        deadline = time.monotonic() + self.start_timeout
        pause = 0.005
        while True:
            code = process.poll()
            if code is not None:
                how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
                raise self._failure(f"ended at its start ({how})", log_start)
            with contextlib.suppress(OSError):
                if self._probe():
                    return
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {self.start_timeout:g} s", log_start)
            time.sleep(pause)
            pause = min(0.05, pause * 1.5)

    def _failure(self, happened: str, log_start: int) -> EmbeddedError:
        shown = files.tail(self.log_file, log_start)
        return EmbeddedError(f"{self.what} {happened}. The end of {self.log_file}:\n{shown}")

    def stop(self) -> None:
        """Stop in order (data flushed); bounded: in the end it is killed. Does nothing when it is not running."""
        with self._guard:
            self._end(self.stop_signals)

    def kill(self) -> None:
        """SIGKILL the server and its helper processes, as a crash would; returns once all are gone."""
        with self._guard:
            self._end(())

    def _end(self, signals: Sequence[tuple[int, float]]) -> None:
        launched = self._launched
        if launched is not None:
            process = launched.process
            for number, patience in signals:
                if process.poll() is not None:
                    break
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
            if process.poll() is None:
                self._kill_group(process)
        self._forget()

    def _kill_group(self, process: subprocess.Popen[bytes]) -> None:
        """PostgreSQL's backends have process groups of their own, so go by descent."""
        helpers = descendants(process.pid)
        for pid in (process.pid, *helpers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 10.0
        while any(_is_running(pid) for pid in helpers) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _reap(self) -> None:
        if self._launched is not None:
            if self._launched.process.poll() is None:
                self._kill_group(self._launched.process)
            self._launched.close()
            self._launched = None

    def _forget(self) -> None:
        self._reap()
        self._lock.release()

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def _is_running(pid: int) -> bool:
    fields = _stat_fields(pid)
    return fields is not None and fields[0] not in "ZX"


def descendants(pid: int) -> list[int]:
    """Process ids of all children and their children (Linux; empty elsewhere)."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat_fields(int(entry.name))
        if fields is not None:
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found

"""Child processes of the bench: started with a parent-death signal, talking JSON lines, watched for CPU and memory."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.02


class BenchError(RuntimeError):
    """A run that cannot be used; the message says why."""


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def python_path() -> str:
    return os.pathsep.join(str(path) for path in (ROOT, ROOT / "services" / "src"))


class Child:
    """One process. Its stderr (and stdout unless ``lines``) goes to ``log``."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        lines: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        environment = {**os.environ, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1", **(env or {})}
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE if lines else subprocess.DEVNULL,
                stdout=subprocess.PIPE if lines else stderr,
                stderr=stderr,
                env=environment,
                cwd=cwd or ROOT,
                text=True,
                preexec_fn=_die_with_parent,
            )
        self.pid = self.process.pid
        self.stats = psutil.Process(self.pid)
        if lines:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def say(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def wait_event(self, *names: str, timeout: float) -> dict[str, Any]:
        """The next event with one of these names; raises BenchError on ``lost``, at the process's end, on time-out."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                event = self._events.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                raise BenchError(f"{self.name}: no {'/'.join(names)} within {timeout:.0f} s{self.tail()}") from None
            if event is None:
                raise BenchError(f"{self.name} ended while {'/'.join(names)} was awaited{self.tail()}")
            if event["event"] in names:
                return event
            if event["event"] in ("lost", "closed"):
                raise BenchError(f"{self.name}: the client went away: {event}")

    def check(self) -> None:
        """Raises BenchError when the process has ended."""
        if self.process.poll() is not None:
            raise BenchError(f"{self.name} ended with code {self.process.returncode}{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n  | " + "\n  | ".join(text) if text else ""

    def stop(self, timeout: float = 15.0) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def cpu_seconds(pid: int, *, children: bool = True) -> float:
    """User and system time of all threads of a process and its children, the ended ones included.

    On Linux a process's own time is read to the nanosecond from its CPU clock: /proc counts in hundredths of a second,
    too coarse for a blast of a second or two.
    """
    try:
        process = psutil.Process(pid)
        family = [process, *(process.children(recursive=True) if children else [])]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(_own_seconds(member, ended_children=children) for member in family)


def _own_seconds(process: psutil.Process, *, ended_children: bool) -> float:
    try:
        times = process.cpu_times()
        own = times.user + times.system
        if sys.platform == "linux":
            own = time.clock_gettime_ns(_cpu_clock(process.pid)) / 1e9
    except (psutil.NoSuchProcess, OSError):
        return 0.0
    return own + (times.children_user + times.children_system if ended_children else 0.0)


def _machine_seconds() -> tuple[float, float]:
    """(busy seconds of all cores, all their seconds) since the machine started."""
    times = psutil.cpu_times()
    every = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return every - times.idle - getattr(times, "iowait", 0.0), every


def _cpu_clock(pid: int) -> int:
    """The clock id of a process's CPU time (clock_getcpuclockid(3), which Python does not offer)."""
    return (~pid << 3) | 2


@dataclass
class Watched:
    pid: int
    sampled: bool = True
    start_cpu: float = 0.0
    end_cpu: float = 0.0
    peak_rss: int = 0
    last_rss: int = 0

    @property
    def cpu(self) -> float:
        return self.end_cpu - self.start_cpu


@dataclass
class Watch:
    """CPU between :meth:`mark` and :meth:`end`, RSS peak (every 20 ms) between :meth:`start` and :meth:`close`."""

    processes: dict[str, Watched] = field(default_factory=dict)
    others: float = 0.0
    """Share of all cores (0..1) that whatever is not watched used meanwhile, this process included."""
    _begun: tuple[float, float] = (0.0, 0.0)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def add(self, name: str, pid: int, *, memory: bool = True) -> None:
        """``memory``: sample it (not for a server of many processes that share memory)."""
        self.processes[name] = Watched(pid, memory)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def mark(self) -> None:
        self._begun = _machine_seconds()
        for watched in self.processes.values():
            watched.start_cpu = cpu_seconds(watched.pid)

    def end(self) -> None:
        for watched in self.processes.values():
            watched.end_cpu = cpu_seconds(watched.pid)
        busy, all_cores = (now - then for now, then in zip(_machine_seconds(), self._begun, strict=True))
        ours = sum(watched.cpu for watched in self.processes.values())
        # Time that a core waited for its disk may be told less the second time.
        self.others = min(1.0, max(0.0, busy - ours) / all_cores) if all_cores > 0 else 0.0

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while True:
            for watched in tuple(self.processes.values()):
                if not watched.sampled:
                    continue
                try:
                    rss = int(Path(f"/proc/{watched.pid}/statm").read_text().split()[1]) * page
                except (OSError, IndexError):
                    continue
                watched.last_rss = rss or watched.last_rss
                watched.peak_rss = max(watched.peak_rss, rss)
            if self._stop.wait(SAMPLE_SECONDS):
                return

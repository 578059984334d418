"""``--profile``: where the services' time goes, by py-spy (``pip install py-spy``; it is no dependency).

It samples each service, native frames included, while the exchange sends. The run's CPU numbers are then of no use.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bench.processes import BenchError, Child

RATE = 250
TOP = 30
_LINE = re.compile(r":\d+\)$")


def find() -> str:
    """The py-spy program; raises BenchError with the remedy."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise BenchError("--profile needs py-spy: pip install py-spy (as root, or with ptrace allowed)")
    return found


def name_of(frame: str) -> str:
    """A frame without its line number, so that one function is one entry."""
    return _LINE.sub(")", frame)


def summary(collapsed: str) -> str:
    """Markdown of a collapsed-stacks file: functions by the share of samples spent in themselves and below them."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [name_of(frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            below[frame] += int(count)
    total = max(own.total(), 1)
    lines = [
        f"{total} samples at {RATE} Hz",
        "",
        "| in itself | with what it calls | function |",
        "| --- | --- | --- |",
    ]
    for frame, samples in own.most_common(TOP):
        lines.append(f"| {samples / total:.1%} | {below[frame] / total:.1%} | `{frame}` |")
    lines += ["", "| with what it calls | in itself | function |", "| --- | --- | --- |"]
    for frame, samples in below.most_common(TOP):
        lines.append(f"| {samples / total:.1%} | {own[frame] / total:.1%} | `{frame}` |")
    return "\n".join(lines) + "\n"


class Profiler:
    """py-spy beside each of ``children``; the summaries are ``folder/ROLE.profile.md``."""

    def __init__(self, children: Mapping[str, Child], folder: Path) -> None:
        self._folder = folder
        program = find()
        self._spies = {
            role: subprocess.Popen(
                [program, "record", "--native", "--format", "raw", "--rate", str(RATE), "--duration", "100000",
                 "--output", str(self._raw(role)), "--pid", str(child.pid)],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for role, child in children.items()
        }  # fmt: skip

    def _raw(self, role: str) -> Path:
        return self._folder / f"{role}.stacks"

    def stop(self) -> None:
        for spy in self._spies.values():
            spy.send_signal(signal.SIGINT)
        for role, spy in self._spies.items():
            spy.wait(60)
            raw = self._raw(role)
            if raw.exists():
                (self._folder / f"{role}.profile.md").write_text(summary(raw.read_text()))

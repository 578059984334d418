"""Collects records into runs, in the order in which they happened, until a batch is sealed."""

from __future__ import annotations

from dataclasses import dataclass, field

from feedmill.shared import control
from feedmill.shared.frames import Run, RunKind

FRAME_OVERHEAD = 80
"""Bytes of memory a frame costs beside its payload while it is not yet packed (object headers, list slots)."""


@dataclass(slots=True)
class Contents:
    """What was taken from the packer: the next batch's runs."""

    runs: list[Run]
    frames: int
    size: int
    """Bytes charged to the budget while it was open."""
    controls: list[control.Control] = field(default_factory=list)
    rest: int = 0


class Packer:
    """The open batch. Records of the same kind and connection that follow each other share a run."""

    __slots__ = ("_controls", "_frames", "_last", "_rest", "_runs", "size")

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._last: Run | None = None
        self._frames = 0
        self._rest = 0
        self._controls: list[control.Control] = []
        self.size = 0
        """Bytes, overhead included."""

    @property
    def empty(self) -> bool:
        return not self._runs

    @property
    def frames(self) -> int:
        return self._frames

    def add_frames(self, conn: int, times: list[int], frames: list[bytes]) -> int:
        """Take over both lists (same length, at least one); gives the bytes they are charged at."""
        size = sum(map(len, frames)) + FRAME_OVERHEAD * len(frames)
        self._frames += len(frames)
        self.size += size
        last = self._last
        if last is not None and last.conn == conn and last.kind == RunKind.FRAMES:
            last.times += times
            last.frames += frames
        else:
            self._last = Run(int(RunKind.FRAMES), conn, times, frames)
            self._runs.append(self._last)
        return size

    def add_control(self, conn: int, at: int, record: control.Control) -> int:
        self._controls.append(record)
        return self._add(RunKind.CONTROL, conn, at, control.encode(record))

    def add_rest(self, at: int, answer: control.RestAnswer) -> int:
        self._rest += 1
        return self._add(RunKind.REST, 0, at, control.encode(answer))

    def _add(self, kind: RunKind, conn: int, at: int, payload: bytes) -> int:
        size = len(payload) + FRAME_OVERHEAD
        self.size += size
        last = self._last
        if last is not None and last.conn == conn and last.kind == kind:
            last.times.append(at)
            last.frames.append(payload)
        else:
            self._last = Run(int(kind), conn, [at], [payload])
            self._runs.append(self._last)
        return size

    def take(self) -> Contents | None:
        """The open batch's contents, None when there are none; a new batch begins."""
        if not self._runs:
            return None
        contents = Contents(self._runs, self._frames, self.size, self._controls, self._rest)
        self._runs, self._last, self._frames, self._rest, self._controls, self.size = [], None, 0, 0, [], 0
        return contents

"""What is given up when neither disk nor memory has room: the newest, as a venue can still be asked for that. Pure.

Per connection one range at a time is counted. It is told by a Shed record that stands in the stream where the frames
would have, before anything else of that connection; the distributor makes gap rows of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from feedmill.shared.control import Shed


@dataclass(slots=True)
class _Range:
    frames: int
    size: int
    from_ns: int
    to_ns: int


class Shedder:
    def __init__(self) -> None:
        self._ranges: dict[int, _Range] = {}
        self.frames = 0
        """Given up since the start."""
        self.bytes = 0

    def __bool__(self) -> bool:
        """Whether something is to be told."""
        return bool(self._ranges)

    def add(self, conn: int, times: list[int], frames: list[bytes]) -> None:
        """Give these up (same length, at least one)."""
        size = sum(map(len, frames))
        self.frames += len(frames)
        self.bytes += size
        found = self._ranges.get(conn)
        if found is None:
            self._ranges[conn] = _Range(len(frames), size, times[0], times[-1])
        else:
            found.frames += len(frames)
            found.size += size
            found.to_ns = times[-1]

    def take(self, conn: int | None) -> list[Shed]:
        """The record that ends the range of a connection (None: of all), if there is one."""
        numbers = list(self._ranges) if conn is None else [conn]
        found = [(number, self._ranges.pop(number)) for number in numbers if number in self._ranges]
        return [Shed(number, each.frames, each.size, each.from_ns, each.to_ns) for number, each in found]

"""Names of PostgreSQL's write-ahead log, and what follows from which of them are there. Pure.

The log is cut into files (segments) of one size, numbered without a gap. A server that was promoted goes on in the
segment in which it was promoted, on another timeline; how far a restore goes follows from the numbers alone, and
PostgreSQL itself takes the right timeline. What its predecessor wrote after that is no part of the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from feedmill.general.backup.manifest import Manifest
from feedmill.general.backup.names import wal_of
from feedmill.general.backup.stores.base import Found
from feedmill.shared.clock import iso

SEGMENT_BYTES = 16 << 20
"""PostgreSQL's own default."""
USELESS_AFTER_NS = 2 * 86400 * 1_000_000_000
"""A log that no base backup needs is deleted this long after it was stored: a first base backup may be under way."""
CLOCKS_NS = 3600 * 1_000_000_000
"""So much the clocks of the destination and of the database may differ."""
_FILE = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_PARTIAL = re.compile(r"([0-9A-F]{24})\.([0-9A-F]{16})\.partial")
_LSN = re.compile(r"([0-9A-F]{1,8})/([0-9A-F]{1,8})")
_SWITCH = re.compile(r"(\d+)\s+([0-9A-F]{1,8}/[0-9A-F]{1,8})(?:\s.*)?")


def parse_lsn(text: str) -> int:
    """A position in the log as PostgreSQL writes it (``0/16B3748``). Raises ValueError."""
    found = _LSN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a position in the log")
    return int(found[1], 16) << 32 | int(found[2], 16)


def show_lsn(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One file of the log. Ordered by where it stands in the log."""

    number: int
    timeline: int

    def name(self, size: int = SEGMENT_BYTES) -> str:
        """Of its file, as PostgreSQL calls it. ``size``: bytes of a segment."""
        each = (1 << 32) // size
        return f"{self.timeline:08X}{self.number // each:08X}{self.number % each:08X}"

    def start(self, size: int = SEGMENT_BYTES) -> int:
        """Position of its first byte."""
        return self.number * size


def segment_of(file: str, size: int = SEGMENT_BYTES) -> Segment | None:
    """The segment that a finished file holds; None for any other name."""
    found = _FILE.fullmatch(file)
    if found is None:
        return None
    timeline, high, low = (int(part, 16) for part in found.groups())
    return Segment(high * ((1 << 32) // size) + low, timeline)


def segment_at(position: int, timeline: int, size: int = SEGMENT_BYTES) -> Segment:
    """The segment that holds the byte at ``position``."""
    return Segment(position // size, timeline)


def history_name(timeline: int) -> str:
    """The file that says where a timeline branched off."""
    return f"{timeline:08X}.history"


@dataclass(frozen=True, slots=True)
class Lineage:
    """A timeline, and those that it came out of."""

    timeline: int
    before: tuple[tuple[int, int], ...] = ()
    """(timeline, position at which the next one branched off), the oldest first."""

    def segment(self, number: int, size: int) -> Segment:
        """The segment of that number: that in which a timeline begins holds what was before it, too."""
        for timeline, end in self.before:
            if number < end // size:
                return Segment(number, timeline)
        return Segment(number, self.timeline)


def lineage_of(timeline: int, history: str) -> Lineage:
    """From the text of its history file. Raises ValueError."""
    before = []
    for line in history.splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _SWITCH.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a line of a timeline's history")
        before.append((int(found[1]), parse_lsn(found[2])))
    return Lineage(timeline, tuple(before))


def partial_name(file: str, at_ns: int) -> str:
    """What an unfinished file is stored as: one name each time, the later ones sort behind."""
    return f"{file}.{at_ns:016X}.partial"


def partial_of(file: str) -> tuple[str, int] | None:
    """(finished file's name, when it was stored in ns) of an unfinished one; None for any other name."""
    found = _PARTIAL.fullmatch(file)
    return (found[1], int(found[2], 16)) if found else None


@dataclass(frozen=True, slots=True)
class Log:
    """What the destination holds of the log of one PostgreSQL system."""

    system: str
    files: Mapping[str, Found]
    """Finished segments and history files by their file's name."""
    partials: Mapping[str, Found]
    """The newest unfinished one by the finished file's name, where the finished one is not there."""
    leftovers: Sequence[Found]
    """Unfinished ones that nobody needs any more."""

    def finished(self, size: int) -> set[int]:
        """Numbers of the segments that are there as a whole."""
        return _numbers(self.files, size)

    def unfinished(self, size: int) -> set[int]:
        """Numbers of those of which only a beginning is there: whatever follows them, it ends in them."""
        return _numbers(self.partials, size) - self.finished(size)


def _numbers(names: Iterable[str], size: int) -> set[int]:
    return {segment.number for name in names if (segment := segment_of(name, size)) is not None}


def logs_of(found: Iterable[Found]) -> dict[str, Log]:
    """What is stored, by PostgreSQL system; ``found``: what the destination lists below ``wal/``."""
    files: dict[str, dict[str, Found]] = {}
    partials: dict[str, list[tuple[str, int, Found]]] = {}
    for item in found:
        place = wal_of(item.name)
        if place is None:
            continue
        system, file = place
        partial = partial_of(file)
        if partial is None:
            files.setdefault(system, {})[file] = item
        else:
            partials.setdefault(system, []).append((*partial, item))
    made = {}
    for system in sorted({*files, *partials}):
        finished = files.get(system, {})
        newest: dict[str, Found] = {}
        leftovers: list[Found] = []
        for file, _, item in sorted(partials.get(system, []), key=lambda each: each[:2], reverse=True):
            if file in finished or file in newest:
                leftovers.append(item)
            else:
                newest[file] = item
        made[system] = Log(system, finished, newest, leftovers)
    return made


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a base backup can be brought by the log that is stored."""

    base: Manifest
    until: Segment
    """The last one of those that follow each other without a gap."""
    until_ns: int
    """When that one was stored, by the destination's clock: about what a restore reaches."""
    beyond: int = 0
    """Stored segments after a gap, which a restore from this base cannot use."""


class NoWay(Exception):
    """No restore to that moment is possible; the message says what is."""


def reach_of(base: Manifest, log: Log) -> Reach:
    """Raises NoWay when the base backup itself lacks a part of the log that it needs."""
    size = base.wal_segment_bytes
    first, last = segment_of(base.wal_from, size), segment_of(base.wal_to, size)
    if first is None or last is None:
        raise NoWay(f"base backup {base.id}: its manifest names no WAL files: take another one")
    finished, unfinished = log.finished(size), log.unfinished(size)
    end = _end_of(finished, first.number)
    if end + 1 in unfinished:
        end += 1
    if end < last.number:
        missing = Segment(end + 1, last.timeline).name(size)
        raise NoWay(f"base backup {base.id}: needs WAL up to {base.wal_to}, and {missing} is not at the destination")
    at = [
        (segment, item.modified_ns)
        for name, item in (*log.files.items(), *log.partials.items())
        if (segment := segment_of(name, size)) is not None and segment.number == end
    ]
    until, until_ns = max(at)
    return Reach(base, until, until_ns, sum(1 for number in finished | unfinished if number > end))


def _end_of(numbers: set[int], first: int) -> int:
    """The last one of those that follow each other from ``first`` on; ``first - 1`` when that is not there."""
    end = first - 1
    while end + 1 in numbers:
        end += 1
    return end


def choose(bases: Sequence[Manifest], logs: Mapping[str, Log], to_ns: int | None) -> Reach:
    """Where a restore to ``to_ns`` (None: as far as possible) begins. Raises NoWay, also where the log clearly ends
    before: else that shows only when all of it has been replayed.

    The newest base backup that was whole before that moment, since that needs the least of the log. One whose log has a
    gap before ``to_ns`` is passed over for an older one that reaches further.
    """
    ready = sorted((base for base in bases if base.kind == "base"), key=lambda base: base.ended_ns, reverse=True)
    if not ready:
        raise NoWay(
            "there is no base backup: a moment can be restored only where spec.backup.continuous is enabled; restore a "
            "logical backup by its id instead (feedmill backup list)"
        )
    early = [base for base in ready if to_ns is None or base.ended_ns <= to_ns]
    if not early:
        found = reaches(ready, logs)
        firsts = [base.ended_ns for base in ready if isinstance(found[base.id], Reach)]
        first = (
            f"the first moment that can be restored is {iso(min(firsts))}"
            if firsts
            else "and no later one can be restored either"
        )
        raise NoWay(f"no base backup was whole at that time: {first}")
    far: list[Reach] = []
    why: list[str] = []
    for base in early:
        try:
            reach = reach_of(base, logs.get(base.system, Log(base.system, {}, {}, ())))
        except NoWay as error:
            why.append(str(error))
            continue
        if to_ns is None or not reach.beyond or reach.until_ns >= to_ns:
            return _not_beyond(reach, to_ns)
        far.append(reach)
    if not far:
        raise NoWay("; ".join(why))
    return _not_beyond(max(far, key=lambda reach: reach.until_ns), to_ns)


def _not_beyond(reach: Reach, to_ns: int | None) -> Reach:
    if to_ns is not None and to_ns > reach.until_ns + CLOCKS_NS:
        raise NoWay(
            f"base backup {reach.base.id}: the log that is stored ends at about {iso(reach.until_ns)}: choose an "
            "earlier moment, or leave --to out: as far as there is anything"
        )
    return reach


def reaches(bases: Iterable[Manifest], logs: Mapping[str, Log]) -> dict[str, Reach | str]:
    """Of each base backup how far it reaches, or why it does not."""
    found: dict[str, Reach | str] = {}
    for base in bases:
        try:
            found[base.id] = reach_of(base, logs.get(base.system, Log(base.system, {}, {}, ())))
        except NoWay as error:
            found[base.id] = str(error)
    return found


def connected(base: Manifest, log: Log, needed: Segment, lineage: Lineage) -> bool:
    """Whether the log that is stored goes from the base backup up to, and without, ``needed``: all of it finished.

    ``lineage``: of the server's timeline. What a predecessor wrote after the server branched off does not count.
    """
    size = base.wal_segment_bytes
    first, last = segment_of(base.wal_from, size), segment_of(base.wal_to, size)
    if first is None or last is None or lineage.segment(first.number, size).timeline != first.timeline:
        return False
    numbers = range(first.number, max(last.number + 1, needed.number))
    return all(lineage.segment(number, size).name(size) in log.files for number in numbers)


def unneeded(found: Iterable[Found], bases: Sequence[Manifest], now_ns: int) -> tuple[Found, ...]:
    """What of the log may be deleted when only ``bases`` are kept: all before the first one of its system.

    History files stay as long as a base backup of the system does.
    """
    gone: list[Found] = []
    for system, log in logs_of(found).items():
        gone += log.leftovers
        kept = [base for base in bases if base.kind == "base" and base.system == system]
        if not kept:
            items = (*log.files.values(), *log.partials.values())
            gone += [item for item in items if item.modified_ns < now_ns - USELESS_AFTER_NS]
            continue
        size = kept[0].wal_segment_bytes
        firsts = [segment.number for base in kept if (segment := segment_of(base.wal_from, size)) is not None]
        for name, item in (*log.files.items(), *log.partials.items()):
            segment = segment_of(name, size)
            if segment is not None and firsts and segment.number < min(firsts):
                gone.append(item)
    return tuple(sorted(gone, key=lambda item: item.name))

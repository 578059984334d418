"""``kubectl feedmill logs``: the logs of all processes of a feed or a pipeline, together and readable."""

from __future__ import annotations

import heapq
import os
import queue
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from feedmill_operator import names
from feedmill_operator.kube.api import ApiError, Manifest
from feedmill_operator.plugin import text
from feedmill_operator.plugin.cluster import Cluster
from feedmill_operator.plugin.errors import WRONG, PluginError
from feedmill_operator.plugin.logline import Line, read, weight
from feedmill_operator.plugin.status import pod_state
from feedmill_operator.plugin.target import Target, find, labels_of, pods

ROLES = (
    names.RECEIVER, names.DISTRIBUTOR, names.PROCESSOR, names.ACCOUNTS, names.MIGRATION, names.MAINTENANCE,
    names.NOTIFY, names.BACKUP, names.BACKUP_RUN, names.REDIS, names.POSTGRES,
)  # fmt: skip
LOOK = 2.0
"""Seconds between two looks for new pods while following."""
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_LEVEL_COLOURS = {"warning": 33, "error": 31, "critical": 31, "debug": 2}


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted of the logs."""

    role: str | None = None
    shard: int | None = None
    follow: bool = False
    raw: bool = False
    previous: bool = False
    since: int | None = None
    """Seconds."""
    tail: int | None = None
    """Lines of each pod."""
    level: str | None = None


def run(cluster: Cluster, namespace: str, wanted: str, options: Options) -> int:
    """Print until all is printed, or, following, until interrupted. 1 when no pod's log could be read."""
    target = find(cluster, namespace, wanted)
    printer = Printer(options)
    if options.follow:
        return _follow(cluster, target, options, printer)
    chosen = _chosen(cluster, target, options)
    if not chosen:
        raise PluginError(_none(target, options))
    readers = [_Reader(cluster, pod, options) for pod in chosen]
    printer.widen([reader.name for reader in readers])
    for line, name in heapq.merge(*(reader.pairs() for reader in readers), key=lambda pair: pair[0].stamp):
        printer.show(name, line)
    _complain(readers)
    return 0 if any(not reader.failure for reader in readers) else 1


def _chosen(cluster: Cluster, target: Target, options: Options) -> list[Manifest]:
    """Pods whose logs are meant: also those of a pipeline's servers and Jobs."""
    found = []
    for pod in pods(cluster, target.namespace):
        marks = labels_of(pod)
        if not target.owns(pod) or (options.role is not None and marks.get(names.COMPONENT) != options.role):
            continue
        if options.shard is not None and marks.get(names.SHARD) != str(options.shard):
            continue
        found.append(pod)
    return found


def _none(target: Target, options: Options) -> str:
    which = "".join(
        [
            f" of role {options.role}" if options.role else "",
            f" of shard {options.shard}" if options.shard is not None else "",
        ]
    )
    if target.suspended and not which:
        return f"{target} is suspended, so it has no pods: set spec.suspend to false"
    roles = "receiver, distributor" if target.is_feed else "processor, migration, maintenance, redis, postgres"
    other = "the pipeline has its own" if target.is_feed else "its feeds have their own"
    return f"{target} has no pod{which} (its roles: {roles}; {other}): see kubectl feedmill status {target}"


class _Reader:
    """One pod's log."""

    def __init__(self, cluster: Cluster, pod: Manifest, options: Options) -> None:
        self.name = str(pod["metadata"]["name"])
        self.pod = pod
        self.failure = ""
        self._cluster = cluster
        self._options = options

    def lines(self, *, follow: bool = False, after: str = "") -> Iterator[Line]:
        """Ends with ``failure`` set when the log cannot be read. ``after``: only what was written later than this."""
        query = [("timestamps", "true"), ("container", self._container())]
        if after:
            query.append(("sinceTime", after))
        elif self._options.since is not None:
            query.append(("sinceSeconds", str(self._options.since)))
        if self._options.tail is not None and not after:
            query.append(("tailLines", str(self._options.tail)))
        if self._options.previous:
            query.append(("previous", "true"))
        try:
            for line in self._cluster.log(str(self.pod["metadata"]["namespace"]), self.name, query, follow=follow):
                found = read(line)
                if not after or found.stamp > after:
                    yield found
        except ApiError as error:
            if error.status in (401, 403):
                raise
            self.failure = f"{pod_state(self.pod)}: {error.message}"

    def pairs(self) -> Iterator[tuple[Line, str]]:
        for line in self.lines():
            yield line, self.name

    def _container(self) -> str:
        containers = (self.pod.get("spec") or {}).get("containers") or [{}]
        return str(containers[0].get("name") or "")


def _complain(readers: Sequence[_Reader]) -> None:
    for reader in readers:
        if reader.failure:
            text.tell(f"{reader.name}: no log: {reader.failure}")


def _follow(cluster: Cluster, target: Target, options: Options, printer: Printer) -> int:
    """A thread a pod; new pods are found by looking again. Ends by Ctrl-C, or when what it follows is deleted."""
    lines: queue.Queue[tuple[str, Line] | ApiError] = queue.Queue(10_000)
    followed: dict[str, threading.Thread] = {}
    last: dict[str, str] = {}
    told: dict[str, str] = {}
    first = True

    def read_one(key: str, pod: Manifest) -> None:
        reader = _Reader(cluster, pod, options)
        try:
            for line in reader.lines(follow=True, after=last.get(key, "")):
                last[key] = line.stamp or last.get(key, "")
                lines.put((reader.name, line))
        except ApiError as error:
            lines.put(error)
        if reader.failure and told.get(key) != reader.failure:
            told[key] = reader.failure
            text.tell(f"{reader.name}: no log yet: {reader.failure}")

    while True:
        chosen = _chosen(cluster, target, options)
        if first and not chosen:
            text.tell(f"{_none(target, options)}; waiting for one")
        first = False
        printer.widen([str(pod["metadata"]["name"]) for pod in chosen])
        for pod in chosen:
            key = str(pod["metadata"]["uid"])
            ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") and key in followed
            if not ended and (key not in followed or not followed[key].is_alive()):
                followed[key] = threading.Thread(target=read_one, args=(key, pod), daemon=True)
                followed[key].start()
        _drain(lines, printer)


def _drain(lines: queue.Queue[tuple[str, Line] | ApiError], printer: Printer) -> None:
    """Print what comes within the time of a look."""
    until = time.monotonic() + LOOK
    while (left := until - time.monotonic()) > 0:
        try:
            found = lines.get(timeout=left)
        except queue.Empty:
            return
        if isinstance(found, ApiError):
            raise found
        printer.show(*found)


class Printer:
    """Lines to standard output: ``pod time LEVEL message``, or as the processes wrote them."""

    def __init__(self, options: Options) -> None:
        self._raw = options.raw
        self._least = weight(options.level) if options.level else 0
        self._colour = text.is_terminal() and not _no_colour()
        self._width = 0

    def widen(self, pod_names: Sequence[str]) -> None:
        self._width = max([self._width, *(len(name) for name in pod_names)])

    def show(self, pod: str, line: Line) -> None:
        if self._least and weight(line.level) < self._least:
            return
        if self._raw:
            print(line.raw, flush=True)
            return
        lead = self._paint(pod.ljust(self._width), _COLOURS[zlib.crc32(pod.encode()) % len(_COLOURS)])
        level = "" if line.level in ("info", "") else f"{line.level.upper()} "
        body = f"{line.time} {level}{line.message}".strip()
        colour = _LEVEL_COLOURS.get(line.level)
        for part in (body, *(f"    {each}" for each in line.trace)):
            print(f"{lead} {self._paint(part, colour)}", flush=True)

    def _paint(self, what: str, colour: int | None) -> str:
        return f"\x1b[{colour}m{what}\x1b[0m" if self._colour and colour is not None else what


def _no_colour() -> bool:
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def check_role(role: str | None) -> str | None:
    """Raises PluginError."""
    if role is None or role in ROLES:
        return role
    from feedmill.resources.problems import choose

    raise PluginError(f"--role {role}: {choose(role, ROLES)}", WRONG)

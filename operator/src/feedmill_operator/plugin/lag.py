"""``kubectl feedmill lag``: how far behind each shard is, asked of the processes now."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedmill_operator import names
from feedmill_operator.plugin import text
from feedmill_operator.plugin.ask import Answer, ask_all
from feedmill_operator.plugin.cluster import Cluster
from feedmill_operator.plugin.target import Target, everything, find_all, pods

_OLD_MS = 3_600_000.0
"""An event this much older than its commit is a recorded one: then the time since receiving says more."""


@dataclass(slots=True)
class Shard:
    """The figures of one shard; None = nobody could say."""

    namespace: str
    feed: str
    shard: str
    receivers: int = 0
    """That answered."""
    frames_per_second: float | None = None
    backlog_batches: int | None = None
    """Sealed by receivers and not yet taken by Redis."""
    backlog_bytes: float | None = None
    distributor_seconds: float | None = None
    """Age of the oldest captured entry that is not dispatched."""
    held_back: str = ""
    processor_commits: int | None = None
    """Dispatched and not yet stored."""
    processor_seconds: float | None = None
    """Age of the oldest commit that is not stored."""
    latency_since: str | None = None
    """exchange or receive: from when to the commit the latency runs."""
    p50_ms: float | None = None
    p99_ms: float | None = None
    notes: list[str] = field(default_factory=list)


def run(cluster: Cluster, namespace: str | None, wanted: Sequence[str], *, as_json: bool) -> int:
    """Print; 0 when every process answered, else 1."""
    if wanted:
        assert namespace is not None
        targets = find_all(cluster, namespace, wanted)
    else:
        targets = everything(cluster, namespace)
    feeds = _feeds(cluster, targets)
    if not feeds:
        text.tell("no feed to ask: kubectl feedmill status -A lists what there is")
        return 0
    pipelines = {(feed.namespace, feed.pipeline) for feed in feeds}
    keys = {(feed.namespace, feed.name) for feed in feeds}
    asked = [
        pod
        for pod in pods(cluster, namespace)
        if _is_of(pod["metadata"]["namespace"], (pod["metadata"].get("labels") or {}), keys, pipelines)
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]
    answers = ask_all(cluster, asked, metrics=True)
    shards = gather(feeds, answers)
    silent = [answer for answer in answers if answer.why]
    if as_json:
        text.say(
            json.dumps(
                {
                    "shards": [dataclasses.asdict(shard) for shard in shards],
                    "silent": [{"namespace": each.namespace, "pod": each.pod, "why": each.why} for each in silent],
                },
                indent=2,
            )
        )
    else:
        _show(shards, silent, namespace is None)
    return 1 if silent else 0


def _feeds(cluster: Cluster, targets: Sequence[Target]) -> list[Target]:
    """The feeds that are meant: those named, and all of the pipelines named."""
    found = {(target.namespace, target.name): target for target in targets if target.is_feed}
    pipelines = {(target.namespace, target.name) for target in targets if not target.is_feed}
    for namespace in {namespace for namespace, _ in pipelines}:
        for other in everything(cluster, namespace):
            if other.is_feed and (namespace, other.pipeline) in pipelines:
                found.setdefault((namespace, other.name), other)
    return [found[key] for key in sorted(found)]


def _is_of(
    namespace: str, labels: Mapping[str, str], feeds: set[tuple[str, str]], pipelines: set[tuple[str, str]]
) -> bool:
    role = labels.get(names.COMPONENT)
    if role in (names.RECEIVER, names.DISTRIBUTOR):
        return (namespace, labels.get(names.FEED, "")) in feeds
    return role == names.PROCESSOR and (namespace, labels.get(names.PIPELINE, "")) in pipelines


def gather(feeds: Sequence[Target], answers: Sequence[Answer]) -> list[Shard]:
    """One entry a shard, of every feed in order. Pure."""
    found: list[Shard] = []
    for feed in feeds:
        own = [answer for answer in answers if (answer.namespace, answer.feed) == (feed.namespace, feed.name)]
        processors = [
            answer.health
            for answer in answers
            if answer.role == names.PROCESSOR and answer.namespace == feed.namespace and answer.health
        ]
        numbers = {answer.shard for answer in own if answer.shard.isdigit()}
        for number in sorted(numbers, key=int) or [""]:
            shard = Shard(feed.namespace, feed.name, number)
            mine = [answer for answer in own if answer.shard == number]
            if not mine:
                shard.notes.append("suspended" if feed.suspended else "no pods")
            _receivers(shard, [answer for answer in mine if answer.role == names.RECEIVER])
            _distributors(shard, [a.health for a in mine if a.role == names.DISTRIBUTOR and a.health])
            _processors(shard, processors)
            if mine:
                exchange = (feed.manifest.get("spec") or {}).get("exchange") or {}
                _latency(shard, f"{exchange.get('name')}/{exchange.get('market')}", processors)
            found.append(shard)
    return found


def _receivers(shard: Shard, answers: Sequence[Answer]) -> None:
    heard = [answer for answer in answers if answer.health]
    shard.receivers = len(heard)
    if not heard:
        return
    sections = [
        connection
        for answer in heard
        for connection in (_part(answer.health, "connections")).values()
        if isinstance(connection, Mapping)
    ]
    shard.frames_per_second = _total(connection.get("framesPerSecond") for connection in sections)
    for connection in sections:
        failure = connection.get("failure")
        if connection.get("state") != "open" and isinstance(failure, Mapping):
            note = f"cannot reach {failure.get('host')}: {failure.get('cause')}"
            if note not in shard.notes:
                shard.notes.append(note)
    sessions = [_part(answer.health, "session") for answer in heard]
    shard.backlog_batches = _whole(
        [
            session["batches"] - session["acknowledged"]
            for session in sessions
            if isinstance(session.get("batches"), int) and isinstance(session.get("acknowledged"), int)
        ],
        len(heard),
    )
    unsent = [answer.metrics.get("feedmill_receiver_unsent_bytes") for answer in heard]
    shard.backlog_bytes = None if None in unsent else sum(value for value in unsent if value is not None)


def _distributors(shard: Shard, documents: Sequence[Mapping[str, Any]]) -> None:
    """The one at work says; those that stand by know nothing of it."""
    working = [document for document in documents if not _part(document, "dispatch").get("standby", True)]
    if documents and not working:
        shard.notes.append("no distributor is at work")
    lags = [_part(document, "lag").get("seconds") for document in working]
    shard.distributor_seconds = max((lag for lag in lags if lag is not None), default=None)
    shard.held_back = next((held for d in working if (held := str(_part(d, "dispatch").get("heldBack") or ""))), "")
    if shard.held_back:
        shard.notes.append(f"held back: {shard.held_back}")


def _processors(shard: Shard, documents: Sequence[Mapping[str, Any]]) -> None:
    name = f"{shard.namespace}.{shard.feed}.{shard.shard}"
    entries = [entry for document in documents if isinstance(entry := _part(document, "shards").get(name), Mapping)]
    owned = [entry for entry in entries if entry.get("owned")]
    if entries and not owned:
        shard.notes.append("no processor has it")
    for entry in owned:
        shard.processor_commits, shard.processor_seconds = entry.get("lagCommits"), entry.get("lagSeconds")
        if entry.get("lastError"):
            shard.notes.append(f"processor: {entry['lastError']}")


def _latency(shard: Shard, venue: str, documents: Sequence[Mapping[str, Any]]) -> None:
    """Of the shard's exchange market as a whole: the processors measure by market. The worst of them is shown."""
    for since in ("exchange", "receive"):
        found = [
            stretch
            for document in documents
            if isinstance(stretch := _part(_part(document, "latency"), venue).get(f"{since}ToCommit"), Mapping)
            and stretch.get("p50Ms") is not None
        ]
        if found and (since == "receive" or min(stretch["p50Ms"] for stretch in found) < _OLD_MS):
            shard.latency_since = since
            shard.p50_ms = max(stretch["p50Ms"] for stretch in found)
            shard.p99_ms = max(stretch["p99Ms"] for stretch in found)
            return


def _part(document: Any, key: str) -> Mapping[str, Any]:
    found = document.get(key) if isinstance(document, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _whole(values: Sequence[int], expected: int) -> int | None:
    """A sum only where nobody is missing from it."""
    return sum(values) if len(values) == expected else None


def _show(shards: Sequence[Shard], silent: Sequence[Answer], namespaces: bool) -> None:
    columns = [
        "FEED", "SHARD", "FRAMES/S", "RECEIVER BACKLOG", "DISTRIBUTOR LAG", "PROCESSOR LAG", "P50", "P99",
    ]  # fmt: skip
    lead = ["NAMESPACE"] if namespaces else []
    text.table(
        [*lead, *columns],
        [[*([shard.namespace] if namespaces else []), *_cells(shard)] for shard in shards],
        right=columns[1:],
    )
    below = [
        f"{shard.feed}{f' shard {shard.shard}' if shard.shard else ''}: {note}"
        for shard in shards
        for note in shard.notes
    ]
    below += [f"{answer.pod} gave no answer: {answer.why}" for answer in silent]
    if any(shard.latency_since == "receive" for shard in shards):
        below.append("P50 and P99 run from receiving to the commit: these frames are recorded ones.")
    if below:
        text.say()
    for line in below:
        text.say(line)


def _cells(shard: Shard) -> list[str]:
    backlog = text.UNKNOWN
    if shard.backlog_batches is not None:
        backlog = f"{shard.backlog_batches} batches"
        if shard.backlog_bytes is not None:
            backlog += f", {text.size(shard.backlog_bytes)}"
    stored = text.seconds(shard.processor_seconds)
    if shard.processor_commits is not None:
        stored = f"{shard.processor_commits} commits, {stored}"
    return [
        shard.feed,
        shard.shard or "-",
        text.number(shard.frames_per_second),
        backlog,
        text.seconds(shard.distributor_seconds),
        stored,
        text.milliseconds(shard.p50_ms),
        text.milliseconds(shard.p99_ms),
    ]

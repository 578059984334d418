"""What the processes' ``/health`` shows to be wrong: of feeds, servers, spills, manifests, Secrets, accounts. Pure.

A document that is missing, or lacks a section, is no reason to call something well: it makes the look blind for that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from feedmill.general.notify.notices import Finding, Look
from feedmill.plan import Workload, show_key

FRESH = 60.0
"""Seconds without data after which a connection is stale, unless more is usual of it."""
LATE = 60.0
"""Seconds that what was captured may take until it is stored."""
NAMED = 5

Document = Mapping[str, Any]
"""A ``/health`` answer."""


def judge(pipeline: str, expected: Sequence[Workload], documents: Sequence[Document]) -> Look:
    """``expected``: the processes there should be; ``documents``: what those that answered said."""
    own = [each for each in documents if part(each, "process").get("pipeline") == pipeline]
    if expected and not own:
        why = "none of them could be asked: they are all down, or this one cannot reach them"
        blind = ("ProcessDown/", "FeedStale/", "ServerAway/", "Spill", "Lagging/", "TopicSilent/", "ConfigRefused/",
                 "SecretRefused/", "AccountProblem/")  # fmt: skip
        return Look((Finding("ProcessDown", pipeline, "ProcessDown", {"why": why}),), blind)
    look = _down(expected, own)
    for rule in (_stale, _silent, _spills):
        look += rule(expected, own)
    for other in (_servers, _lag, _refused, _accounts):
        look += other(pipeline, own)
    return look


def part(document: Document, *names: str) -> Mapping[str, Any]:
    """A section of a document, empty where it is not there or no section."""
    found: Any = document
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _shard_of(document: Document) -> tuple[str, str, int | None]:
    """(role, feed, shard) of a process; for those of a pipeline the feed is empty."""
    process = part(document, "process")
    shard = process.get("shard")
    return str(document.get("service", "")), str(process.get("feed") or ""), shard if isinstance(shard, int) else None


def _wanted_of(load: Workload) -> tuple[str, str, int | None]:
    return load.role, show_key(load.feed) if load.feed else "", load.shard


def _down(expected: Iterable[Workload], documents: Iterable[Document]) -> Look:
    wanted: dict[tuple[str, str, int | None], int] = defaultdict(int)
    found: dict[tuple[str, str, int | None], int] = defaultdict(int)
    pipeline = ""
    for load in expected:
        wanted[_wanted_of(load)] += 1
        pipeline = show_key(load.pipeline)
    for document in documents:
        found[_shard_of(document)] += 1
    findings = []
    for (role, feed, shard), count in sorted(wanted.items(), key=str):
        if found[role, feed, shard] < count:
            where = f"/{feed}/{shard}" if feed else ""
            body = {"role": role, "wanted": count, "found": found[role, feed, shard]}
            findings.append(
                Finding(
                    "ProcessDown",
                    feed or pipeline,
                    f"ProcessDown/{role}{where}",
                    body | ({"shard": shard} if feed else {}),
                )
            )
    return Look(tuple(findings))


def _shards(expected: Iterable[Workload], documents: Iterable[Document]) -> dict[tuple[str, int], list[Document]]:
    """Receivers of each shard that there should be."""
    found: dict[tuple[str, int], list[Document]] = {
        (show_key(load.feed), load.shard): []
        for load in expected
        if load.role == "receiver" and load.feed is not None and load.shard is not None
    }
    for document in documents:
        role, feed, shard = _shard_of(document)
        if role == "receiver" and shard is not None and (feed, shard) in found:
            found[feed, shard].append(document)
    return found


def _stale(expected: Iterable[Workload], documents: Iterable[Document]) -> Look:
    """A shard is stale when each of its receivers has a connection without data."""
    look = Look()
    for (feed, shard), receivers in _shards(expected, documents).items():
        key = f"FeedStale/{feed}/{shard}"
        troubles = [_without_data(receiver) for receiver in receivers]
        if not troubles:
            look += Look(blind=(key,))  # It is down, which is told apart.
        elif all(troubles):
            why = list(dict.fromkeys(text for of_one in troubles for text in of_one))
            look += Look((Finding("FeedStale", feed, key, {"shard": shard, "why": why[:NAMED]}),))
    return look


def _without_data(receiver: Document) -> list[str]:
    found = []
    connections = part(receiver, "connections")
    for name, section in sorted(connections.items()):
        if (text := _trouble(str(name), section if isinstance(section, Mapping) else {})) is not None:
            found.append(text)
    if not connections:
        waits = part(receiver, "waitingFor")
        found = [str(why) for why in waits.values()]  # It has not begun: for want of a list, or of budget.
    return found


def _trouble(name: str, section: Mapping[str, Any]) -> str | None:
    failure = part(section, "failure")
    opened, last = _number(section.get("openSeconds")), _number(section.get("lastDataSeconds"))
    if opened is None:
        if failure:
            detail = f" ({failure['detail']})" if failure.get("detail") else ""
            return f"cannot reach {failure.get('host')}: {failure.get('cause')}{detail}"
        end = f" (last: {section['lastEnd']})" if section.get("lastEnd") else ""
        return f"connection {name}: {section.get('state') or 'not open'}{end}"
    limit = max(FRESH, _number(section.get("freshSeconds")) or FRESH)
    silent = opened if last is None else last
    return f"connection {name}: silent for {silent:.0f} s" if silent >= limit else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _silent(expected: Iterable[Workload], documents: Iterable[Document]) -> Look:
    """Topics that one connection does not bring although others flow; of each shard, where no replica has them."""
    look = Look()
    for (feed, shard), receivers in _shards(expected, documents).items():
        key = f"TopicSilent/{feed}/{shard}"
        if not receivers:
            look += Look(blind=(key,))
            continue
        counts = [_silent_topics(receiver) for receiver in receivers]
        least = min(counts, key=lambda count: count[0])
        if least[0]:
            body = {"shard": shard, "topics": least[0], "names": least[1]}
            look += Look((Finding("TopicSilent", feed, key, body),))
    return look


def _silent_topics(receiver: Document) -> tuple[int, list[str]]:
    total, found = 0, []
    for section in part(receiver, "connections").values():
        if not isinstance(section, Mapping) or _number(section.get("openSeconds")) is None:
            continue
        total += int(_number(section.get("silentTopics")) or 0)
        listed = section.get("silent")
        found += [str(each.get("topic")) for each in listed or () if isinstance(each, Mapping)]
    return total, found[:NAMED]


def _spills(expected: Iterable[Workload], documents: Iterable[Document]) -> Look:
    look = Look()
    for (feed, shard), receivers in _shards(expected, documents).items():
        if not receivers:
            look += Look(blind=(f"Spilling/{feed}/{shard}", f"SpillFull/{feed}/{shard}"))
        for section in (part(receiver, "spill") for receiver in receivers):
            state = section.get("state")
            if section.get("shedding") is True or state in ("full", "unusable"):
                body = {"shard": shard, "problem": section.get("problem") or "", "frames": section.get("shedFrames")}
                look += Look((Finding("SpillFull", feed, f"SpillFull/{feed}/{shard}", body),))
            elif state == "spilling":
                body = {
                    "shard": shard,
                    "bytes": section.get("unsentBytes", 0),
                    "oldest": section.get("oldestSeconds", 0),
                }
                look += Look((Finding("Spilling", feed, f"Spilling/{feed}/{shard}", body),))
    return look


_SERVERS = {"redis": "Redis", "postgres": "PostgreSQL"}


def _servers(pipeline: str, documents: Sequence[Document]) -> Look:
    """One finding a server, however many processes cannot reach it."""
    findings = []
    for server, called in _SERVERS.items():
        away = [(document, error) for document in documents if (error := _away(document, server)) is not None]
        if away:
            body = {
                "away": len(away),
                "processes": [_called(document) for document, _ in away[:NAMED]],
                "error": next((error for _, error in away if error), ""),
                "remedy": next((str(part(d, server).get("remedy") or "") for d, _ in away), ""),
            }
            findings.append(Finding("ServerAway", f"{called} of {pipeline}", f"ServerAway/{server}", body))
    return Look(tuple(findings))


def _away(document: Document, server: str) -> str | None:
    """Why a process cannot reach a server; None = it can, or does not say. The breaker of one that stands by is as it
    was when it last had work: it asks nothing, and so could not learn that the server is back."""
    breaker = part(document, "breaker")
    # The processors have a breaker a server, the others one for Redis.
    own = part(breaker, server) if server in breaker else breaker if server == "redis" else {}
    if own.get("state") in ("open", "half-open") and not _stands_by(document):
        return str(own.get("lastError") or "")
    section = part(document, server)
    if section.get("reachable") is False and section.get("lastError"):
        return str(section["lastError"])
    return None


def _called(document: Document) -> str:
    role, feed, shard = _shard_of(document)
    return f"{role} {feed}/{shard}" if feed else role


def _lag(pipeline: str, documents: Sequence[Document]) -> Look:
    worst: dict[str, float] = {}
    for document in documents:
        seconds = _number(part(document, "lag").get("seconds"))
        role = str(document.get("service"))
        if seconds is not None and _away(document, "redis") is None and not _stands_by(document):
            worst[role] = max(worst.get(role, 0.0), seconds)
    return Look(
        tuple(
            Finding("Lagging", pipeline, f"Lagging/{role}", {"role": role, "seconds": round(seconds)})
            for role, seconds in sorted(worst.items())
            if seconds > LATE
        )
    )


def _stands_by(document: Document) -> bool:
    """It works on nothing now, and its lag is of a former time."""
    dispatch, lease = part(document, "dispatch"), part(document, "lease")
    waits = dispatch.get("standby") is True and lease.get("held") is not True
    return waits or part(document, "leases").get("held") == 0


def _refused(pipeline: str, documents: Sequence[Document]) -> Look:
    findings = []
    errors = [str(error) for each in documents if (error := part(each, "config").get("error"))]
    if errors:
        findings.append(Finding("ConfigRefused", pipeline, "ConfigRefused", {"error": errors[0]}))
    for server, called in _SERVERS.items():
        sections = [part(each, "secrets", server) for each in documents]
        bad = [section for section in sections if section.get("state") in ("refused", "unreadable")]
        if bad:
            body = {"server": called, "error": bad[0].get("error") or ""}
            findings.append(Finding("SecretRefused", pipeline, f"SecretRefused/{server}", body))
    return Look(tuple(findings))


def _accounts(_: str, documents: Sequence[Document]) -> Look:
    """Accounts that only the user can help. Those that are connecting are not told of: the venue may rest."""
    members = [each for each in documents if each.get("service") == "accounts"]
    if not members:
        return Look(blind=("AccountProblem/",))
    found: dict[str, Finding] = {}
    for member in members:
        for name, problem in part(member, "accounts", "problems").items():
            if isinstance(problem, Mapping) and problem.get("state") in ("refused", "waiting"):
                body = {"why": problem.get("why") or "", "state": problem["state"]}
                found[str(name)] = Finding("AccountProblem", str(name), f"AccountProblem/{name}", body)
    return Look(tuple(found[name] for name in sorted(found)))

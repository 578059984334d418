"""``kubectl feedmill gaps``: what is or was missing, as the gap rows in PostgreSQL say.

The rows are read where the database can be reached and its password already is: by ``feedmill query`` inside a
processor's pod. Nothing secret leaves the pod.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedmill_operator import names
from feedmill_operator.kube.api import ApiError, Manifest
from feedmill_operator.plugin import text
from feedmill_operator.plugin.cluster import Cluster
from feedmill_operator.plugin.errors import PluginError
from feedmill_operator.plugin.status import pod_state
from feedmill_operator.plugin.target import Target, everything, find_all, labels_of, pods

TIMEOUT = 30.0
_COLUMNS = (
    "g.shard, i.symbol, g.channel, g.cause, g.state, g.from_seq, g.to_seq, "
    "(select coalesce(sum(upper(r) - lower(r)), 0) from unnest(g.missing) r)::bigint as missing, "
    "g.from_ns, g.to_ns, g.repaired_by, g.detected_ns"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of one pipeline's database."""

    namespace: str
    pipeline: str
    feeds: frozenset[str] | None
    """Names; None = all of the pipeline."""


def statement(feeds: Sequence[str] | None, namespace: str, since_ns: int, limit: int) -> str:
    """The question: open gaps, and those found since then; open ones first, then the newest. One more than ``limit``.

    Names of feeds are those of objects that exist, so letters, digits and '-' alone.
    """
    which = ""
    if feeds is not None:
        places = " or ".join(f"starts_with(g.shard, '{namespace}.{feed}.')" for feed in feeds)
        which = f" and ({places})"
    parts = [
        f"select {_COLUMNS} from gaps g left join instruments i on i.id = g.instrument_id",  # noqa: S608
        f"where (g.state = 'open' or g.detected_ns >= {since_ns}){which}",
        f"order by g.state = 'open' desc, g.detected_ns desc limit {limit + 1}",
    ]
    return " ".join(parts)


def run(
    cluster: Cluster, namespace: str | None, wanted: Sequence[str], *, since: int, limit: int, as_json: bool
) -> int:
    """Print; 0 when every pipeline's database answered, also when there are gaps."""
    if wanted:
        assert namespace is not None
        targets = find_all(cluster, namespace, wanted)
    else:
        targets = [target for target in everything(cluster, namespace) if not target.is_feed]
        if not targets:
            text.tell("no pipeline to ask: kubectl feedmill status -A lists what there is")
            return 0
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    more = False
    for one in questions(targets):
        try:
            found = _ask(cluster, one, since, limit)
        except PluginError as error:
            failures.append(str(error))
            continue
        more = more or len(found) > limit
        rows += [_named(row) for row in found[:limit]]
    rows.sort(key=lambda row: (row["state"] != "open", -int(row["detected_ns"])))
    if as_json:
        text.say(json.dumps(rows, indent=2))
    else:
        _show(rows, namespace is None, since, whole=not failures)
    if more:
        text.tell(f"the first {limit} of a pipeline are shown: --limit shows more")
    for failure in failures:
        text.tell(failure)
    return 1 if failures else 0


def questions(targets: Sequence[Target]) -> list[Wanted]:
    """One a pipeline, whichever of its feeds were named. Pure."""
    whole = {(target.namespace, target.name) for target in targets if not target.is_feed}
    parts: dict[tuple[str, str], set[str]] = {}
    for target in targets:
        key = (target.namespace, target.pipeline)
        if target.is_feed and key not in whole:
            parts.setdefault(key, set()).add(target.name)
    return [
        *(Wanted(*key, None) for key in sorted(whole)),
        *(Wanted(*key, frozenset(feeds)) for key, feeds in sorted(parts.items())),
    ]


def _ask(cluster: Cluster, one: Wanted, since: int, limit: int) -> list[dict[str, Any]]:
    pod = _processor(cluster, one)
    container = str(((pod.get("spec") or {}).get("containers") or [{}])[0].get("name") or "")
    sql = statement(
        sorted(one.feeds) if one.feeds is not None else None,
        one.namespace,
        time.time_ns() - since * 10**9,
        limit,
    )
    command = [
        "feedmill", "query", "-o", "json", "--timeout", "20",
        "--config", f"{names.CONFIG_DIR}/resources.yaml", "--pipeline", f"{one.namespace}/{one.pipeline}",
        "--secrets-dir", names.SECRETS_DIR, sql,
    ]  # fmt: skip
    name = str(pod["metadata"]["name"])
    try:
        done = cluster.execute(one.namespace, name, container, command, TIMEOUT)
    except ApiError as error:
        if error.status in (401, 403):
            raise
        raise PluginError(f"pipeline {one.pipeline}: {name} cannot be asked: {error.message}") from error
    if done.code != 0:
        from feedmill.shared.log import redact

        why = redact(done.err.strip() or done.out.strip() or f"exit code {done.code}")
        raise PluginError(f"pipeline {one.pipeline}: {name}: {why}")
    try:
        found = json.loads(done.out)
    except ValueError:
        raise PluginError(f"pipeline {one.pipeline}: {name} gave no rows but: {done.out[:200]!r}") from None
    return [row for row in found if isinstance(row, dict)]


def _processor(cluster: Cluster, one: Wanted) -> Manifest:
    """A processor's pod that runs; raises PluginError with what its pods do instead."""
    own = [
        pod
        for pod in pods(cluster, one.namespace)
        if labels_of(pod).get(names.PIPELINE) == one.pipeline and labels_of(pod).get(names.COMPONENT) == names.PROCESSOR
    ]
    states = {str(pod["metadata"]["name"]): pod_state(pod) for pod in own}
    for wanted in ("Ready", "NotReady"):
        for pod in own:
            if states[str(pod["metadata"]["name"])] == wanted:
                return pod
    seen = f" ({', '.join(f'{name}: {state}' for name, state in states.items())})" if states else ""
    raise PluginError(
        f"pipeline {one.pipeline}: no processor runs that could be asked{seen}: see "
        f"kubectl feedmill status pipeline/{one.pipeline} -n {one.namespace}"
    )


def _named(row: dict[str, Any]) -> dict[str, Any]:
    namespace, _, rest = str(row.get("shard", "")).partition(".")
    feed, _, number = rest.rpartition(".")
    return {"namespace": namespace, "feed": feed, "shard": number} | {k: v for k, v in row.items() if k != "shard"}


def _show(rows: Sequence[dict[str, Any]], namespaces: bool, since: int, *, whole: bool) -> None:
    """``whole``: every database answered; only then no row means no gap."""
    if not rows:
        if whole:
            text.say(f"no gap is open, and none was found in the last {text.span(since)}")
        return
    now = time.time_ns()
    columns = [
        "FEED",
        "SHARD",
        "SYMBOL",
        "CHANNEL",
        "STATE",
        "CAUSE",
        "FROM (UTC)",
        "LENGTH",
        "MISSING",
        "REPAIRED BY",
        "FOUND",
    ]
    lead = ["NAMESPACE"] if namespaces else []
    text.table(
        [*lead, *columns],
        [[*([row["namespace"]] if namespaces else []), *_cells(row, now)] for row in rows],
        right=("LENGTH", "MISSING"),
    )
    open_ones = sum(row["state"] == "open" for row in rows)
    text.say()
    text.say(f"{len(rows)} gap{'s' if len(rows) != 1 else ''}, {open_ones} open")


def _cells(row: dict[str, Any], now: int) -> list[Any]:
    start, end = row.get("from_ns"), row.get("to_ns")
    missing = int(row.get("missing") or 0)
    is_open = row["state"] == "open"
    return [
        str(row["feed"]),
        str(row["shard"]),
        str(row.get("symbol") or "all"),
        str(row.get("channel") or ""),
        (str(row["state"]), "red" if is_open else "green"),
        str(row.get("cause") or ""),
        _clock(start),
        text.seconds(((now if end is None else int(end)) - int(start)) / 1e9) if start is not None else text.UNKNOWN,
        str(missing) if missing else ("?" if is_open else "-"),
        str(row.get("repaired_by") or "-"),
        f"{text.age((now - int(row['detected_ns'])) / 1e9)} ago",
    ]


def _clock(ns: Any) -> str:
    if ns is None:
        return text.UNKNOWN
    return datetime.datetime.fromtimestamp(int(ns) / 1e9, datetime.UTC).strftime("%m-%d %H:%M:%S")

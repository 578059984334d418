"""What a notice says to people: its kind and body become a title and lines. Pure.

Bodies come from triggers (numbers as the exchange wrote them, as text) and from looks; what a body lacks is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from feedmill.general.notify.markdown import Block
from feedmill.general.notify.notices import Notice
from feedmill.resources.types import Severity
from feedmill.shared.clock import SECOND

ICONS = {Severity.INFO: "🔵", Severity.WARNING: "🟠", Severity.CRITICAL: "🔴"}
OVER = "✅"
NAMED = 5
"""Names in one line."""
EACH = 100
"""Of so many events of one key each has a line; more are told by their number and sum."""

Body = Mapping[str, Any]


def block_of(notices: Sequence[Notice]) -> Block:
    """Of notices with one key, in order."""
    first = notices[0]
    if first.kind in EVENTS:
        title, lines = EVENTS[first.kind](notices)
        return Block(ICONS[first.severity], title, tuple(lines))
    last = notices[-1]
    title, lines = _STATES[last.kind](last.subject, last.body)
    if last.body.get("over"):
        lasted = span(last.body.get("lasted_ns"))
        return Block(OVER, f"{title}: over", (f"after {lasted}",) if lasted else ())
    return Block(ICONS[last.severity], f"{title}{' (still)' if last.body.get('again') else ''}", tuple(lines))


def moment(ns: Any) -> str:
    """``2026-11-26 14:03:22 UTC``."""
    return f"{datetime.fromtimestamp(ns // SECOND, UTC):%Y-%m-%d %H:%M:%S} UTC" if isinstance(ns, int) and ns else ""


def span(ns: Any) -> str:
    """``42 s``, ``5 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if not isinstance(ns, int):
        return ""
    seconds = max(0, ns // SECOND)
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def names(items: Sequence[Any], total: int | None = None) -> str:
    """``a, b and 3 more``."""
    more = (len(items) if total is None else total) - min(len(items), NAMED)
    return ", ".join(str(item) for item in items[:NAMED]) + (f" and {more} more" if more > 0 else "")


def number(count: Any, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}" if isinstance(count, int) else f"some {many or one}"


def _since(body: Body) -> list[str]:
    return [f"since {told}"] if (told := moment(body.get("since_ns"))) else []


def _given(*lines: Any) -> list[str]:
    return [str(line) for line in lines if line]


# States: (subject, body) -> title, lines.


def _feed_stale(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"{subject}: no data from the exchange", [
        *_given(f"shard {body['shard']}" if "shard" in body else "", *body.get("why", ())),
        *_since(body),
    ]


def _process_down(subject: str, body: Body) -> tuple[str, list[str]]:
    role = body.get("role")
    if not role:
        return f"{subject}: no process answers", [*_given(body.get("why")), *_since(body)]
    shard = f" of shard {body['shard']}" if body.get("shard") is not None else ""
    answers = f"{body.get('found', 0)} of {number(body.get('wanted'), 'process', 'processes')} answer"
    return f"{subject}: {role}{shard} is down", [answers, *_since(body)]


def _server_away(subject: str, body: Body) -> tuple[str, list[str]]:
    who = names(body.get("processes", ()), body.get("away"))
    return f"{subject} cannot be reached", _given(
        f"by {who}" if who else "", body.get("error"), body.get("remedy"), *_since(body)
    )


def _spilling(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"{subject}: captured data waits on disk", _given(
        f"{body['bytes']:,} bytes, the oldest {body.get('oldest', 0):g} s old" if "bytes" in body else "",
        "Redis is away, full or slower than the exchange; nothing is lost while there is room",
        *_since(body),
    )


def _spill_full(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"{subject}: no room for captured data", _given(
        body.get("problem"), f"shed so far: {number(body.get('frames'), 'frame')}" if body.get("frames") else "",
        "what is shed is told by gap rows", *_since(body),
    )  # fmt: skip


def _lagging(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"{subject}: the {body.get('role', 'processor')} is behind", _given(
        f"by {span(int(body.get('seconds', 0)) * SECOND)}", *_since(body)
    )


def _gap_open(subject: str, body: Body) -> tuple[str, list[str]]:
    lines = [
        f"{each.get('channel')}: {number(each.get('gaps'), 'gap')} ({each.get('cause')})"
        + (f", {number(each['missing'], 'trade')} missing" if each.get("missing") else "")
        + (f": {names(each['symbols'], each.get('instruments'))}" if each.get("symbols") else "")
        for each in body.get("channels", ())
    ]
    return f"{subject}: data is missing", [*lines, *_since(body)]


def _topic_silent(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"{subject}: {number(body.get('topics'), 'channel')} fell silent", _given(
        names(body.get("names", ()), body.get("topics")), *_since(body)
    )


def _config_refused(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"{subject}: a changed manifest is refused", _given(body.get("error"), "the former one stays in force")


def _secret_refused(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"{subject}: a changed Secret is not taken up ({body.get('server')})", _given(
        body.get("error"), "the former one stays in use"
    )


def _account_problem(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"Account {subject} is not listened to", _given(body.get("why"), *_since(body))


def _key_expires(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"The key of account {subject} expires", _given(
        f"at {moment(body.get('expires_ns'))}", "make a new one and store it: feedmill accounts rotate-key"
    )


def _backup_stale(subject: str, body: Body) -> tuple[str, list[str]]:
    last = moment(body.get("last_ns"))
    return f"{subject}: no fresh backup", _given(
        f"the last good one is of {last}" if last else "none ever succeeded", body.get("error")
    )


def _maintenance_stale(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"{subject}: maintenance does not run", _given(f"the last good run ended at {moment(body.get('last_ns'))}")


def _maintenance_failed(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"{subject}: maintenance failed", _given(
        *(f"{part}: {error}" for part, error in (body.get("errors") or {}).items()),
        "feedmill maintain report shows the run",
    )


def _database_trouble(subject: str, body: Body) -> tuple[str, list[str]]:
    return f"Database: {subject}", _given(body.get("text"), body.get("remedy"))


_STATES: dict[str, Callable[[str, Body], tuple[str, list[str]]]] = {
    "FeedStale": _feed_stale,
    "ProcessDown": _process_down,
    "ServerAway": _server_away,
    "Spilling": _spilling,
    "SpillFull": _spill_full,
    "Lagging": _lagging,
    "GapOpen": _gap_open,
    "TopicSilent": _topic_silent,
    "ConfigRefused": _config_refused,
    "SecretRefused": _secret_refused,
    "AccountProblem": _account_problem,
    "KeyExpires": _key_expires,
    "BackupStale": _backup_stale,
    "MaintenanceFailed": _maintenance_failed,
    "DatabaseTrouble": _database_trouble,
    "MaintenanceStale": _maintenance_stale,
}


# Events: notices of one key -> title, lines.


def _letters(notices: Sequence[Notice]) -> tuple[str, list[str]]:
    first = notices[0]
    total = sum(int(each.body.get("letters", 1)) for each in notices)
    return f"{first.subject}: {number(total, 'dead letter')}", _given(
        f"shard {first.body.get('shard')}, reason {first.body.get('reason')}",
        first.body.get("detail"),
        "they are kept: feedmill dlq list",
    )


def _lost(notices: Sequence[Notice]) -> tuple[str, list[str]]:
    first = notices[0]
    gaps = sum(int(each.body.get("gaps", 1)) for each in notices)
    begins = [ns for each in notices if isinstance(ns := each.body.get("from_ns"), int)]
    ends = [ns for each in notices if isinstance(ns := each.body.get("to_ns"), int)]
    symbols = list(dict.fromkeys(name for each in notices for name in each.body.get("symbols") or () if name))
    when = f"from {moment(min(begins))} to {moment(max(ends))}" if begins and ends else ""
    return f"{first.subject}: {number(gaps, 'gap')} of {first.body.get('channel')}", _given(
        f"cause {first.body.get('cause')}; the exchange does not repeat these", when, names(symbols)
    )


def _sides(notices: Sequence[Notice]) -> str:
    sums: dict[Any, Decimal] = {}
    for each in notices:
        side = each.body.get("side")
        sums[side] = sums.get(side, Decimal(0)) + Decimal(each.body.get("size") or 0)
    words = {1: "bought", 2: "sold"}
    return ", ".join(f"{words[side]} {sums[side]:f}" for side in (1, 2) if side in sums)


def _market(notice: Notice) -> str:
    return f"{notice.body.get('exchange')}/{notice.body.get('market')}"


def _fills(notices: Sequence[Notice]) -> tuple[str, list[str]]:
    first = notices[0]
    title = f"{first.subject}: {number(len(notices), 'fill')} of {first.body.get('symbol')} ({_market(first)})"
    if len(notices) > EACH:
        return title, [_sides(notices)]
    return title, [_fill(each.body) for each in notices]


def _fill(body: Body) -> str:
    fee = f", fee {body['fee']} {body.get('fee_asset') or ''}".rstrip() if body.get("fee") is not None else ""
    return f"{_side(body)} {body.get('size')} at {body.get('price')}{fee}, {moment(body.get('event_ns'))}"


def _side(body: Body) -> str:
    return {1: "buy", 2: "sell"}.get(body.get("side", 0), "?")


def _orders(notices: Sequence[Notice]) -> tuple[str, list[str]]:
    first = notices[0]
    title = f"{first.subject}: orders of {first.body.get('symbol')} ({_market(first)})"
    if len(notices) > EACH:
        counts: dict[str, int] = {}
        for each in notices:
            status = str(each.body.get("status"))
            counts[status] = counts.get(status, 0) + 1
        return title, [", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))]
    return title, [_order(each.body) for each in notices]


def _order(body: Body) -> str:
    price = f" at {body['price']}" if body.get("price") is not None else ""
    filled = f", filled {body['filled']}" if body.get("filled") not in (None, "0") else ""
    reason = f" ({body['reason']})" if body.get("reason") else ""
    size = body.get("size") or ""
    return (
        f"{body.get('status')}: {_side(body)} {size} {body.get('type')}{price}{filled}{reason}, "
        f"order {body.get('order')}, {moment(body.get('event_ns'))}"
    )


def _transfers(notices: Sequence[Notice]) -> tuple[str, list[str]]:
    first = notices[0]
    lines = [
        f"{each.body.get('change')} {each.body.get('asset')} ({_cause(each.body)}), {moment(each.body.get('event_ns'))}"
        for each in notices
    ]
    return f"{first.subject}: {number(len(notices), 'transfer')} ({_market(first)})", lines


def _cause(body: Body) -> str:
    # Spot tells that a balance changed from outside, and not by what.
    return str(body.get("cause", "")).replace("unknown:balanceUpdate", "deposit, withdrawal or transfer")


_WORK = {"Backup": "Backup", "Restore": "Restore", "Drill": "Drill of the backup"}


def _work(notices: Sequence[Notice]) -> tuple[str, list[str]]:
    lines: list[str] = []
    for each in notices:
        body = each.body
        begun, ended = body.get("started_ns"), body.get("ended_ns")
        took = f"after {span(ended - begun)}" if isinstance(begun, int) and isinstance(ended, int) else ""
        size = f"{body['size_bytes']:,} bytes" if isinstance(body.get("size_bytes"), int) else ""
        about = ", ".join(_given(body.get("id") if body.get("kind") else each.subject, size, took))
        lines += _given(about, body.get("destination"), body.get("error"))
    kind = notices[0].kind
    failed = kind.endswith("Failed")
    return f"{_WORK[kind.removesuffix('Failed').removesuffix('Done')]} {'failed' if failed else 'done'}", lines


def _test(notices: Sequence[Notice]) -> tuple[str, list[str]]:
    body = notices[0].body
    told = ", ".join(body.get("kinds", ()))
    return f"A test by Feedmill, pipeline {notices[0].subject}", _given(body.get("text"), f"told here: {told}")


EVENTS: dict[str, Callable[[Sequence[Notice]], tuple[str, list[str]]]] = {
    "DeadLetters": _letters,
    "DataLost": _lost,
    "Fill": _fills,
    "Order": _orders,
    "Transfer": _transfers,
    **{f"{what}{end}": _work for what in ("Backup", "Restore", "Drill") for end in ("Failed", "Done")},
    "Test": _test,
}


def refused(notice: Notice) -> Block:
    """A notice that no text can be made of (another version's): told as it is."""
    body = ", ".join(f"{name}: {value}" for name, value in notice.body.items())
    return Block(ICONS[notice.severity], f"{notice.kind} {notice.subject}".strip(), tuple(_given(body)))

"""One process's ``/health``, cut down to what conditions speak of, in steps coarse enough to be compared. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from feedmill_operator.reconcile.account_said import AccountSaid, Counts, read_accounts, read_counts
from feedmill_operator.reconcile.log_said import LogSaid, read_log
from feedmill_operator.reconcile.reading import mapping, number, words
from feedmill_operator.reconcile.run_said import RunSaid, read_run

FRESH = 60.0
"""Seconds without any data on a connection after which it is stale."""
MOST = 50
"""Connections and rejected topics that are kept of one process."""

_BUCKETS = ((1.0, "<1s"), (10.0, "<10s"), (60.0, "<1m"), (600.0, "<10m"))
_OLDEST = ">=10m"


def lag_bucket(seconds: float | None) -> str | None:
    """How far behind, in steps that rarely change; None = not known, which is never 0."""
    if seconds is None:
        return None
    return next((name for most, name in _BUCKETS if seconds < most), _OLDEST)


def age_bucket(seconds: float) -> str:
    """``1m``, ``10m``, ``1h``, ``1d``: at least so long."""
    steps = ((86400.0, "1 day"), (3600.0, "1 hour"), (600.0, "10 minutes"), (60.0, "1 minute"))
    return next((name for least, name in steps if seconds >= least), "some seconds")


@dataclass(frozen=True, slots=True)
class Connection:
    """One WebSocket of a receiver."""

    name: str
    open: bool = False
    host: str = ""
    """Where it could not connect to; empty = there was no failure."""
    cause: str = ""
    detail: str = ""
    last_end: str = ""
    fresh: bool | None = None
    """Data came lately; None = it is too young to say."""
    age: str = ""
    """Since when not, where not."""
    silent: tuple[str, ...] = ()
    """Topics silent far beyond their own usual, by name."""


@dataclass(frozen=True, slots=True)
class Server:
    """How a process finds Redis or PostgreSQL."""

    reachable: bool | None = None
    """None = it has not tried, or has no use for it now."""
    problem: str = ""
    breaker: str = ""
    """closed, half-open, open."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one process said. Equal answers are no news."""

    ready: bool = False
    waiting_for: str = ""
    standby: bool = False
    """It works on no shard now; others do."""
    config_hash: str = ""
    """The configuration it works with; empty = it did not say."""
    config_error: str = ""
    redis: Server = Server()
    postgres: Server = Server()
    lag: str | None = None
    connections: tuple[Connection, ...] = ()
    rejected: tuple[str, ...] = ()
    selected: int | None = None
    """Instruments of the whole feed that `instruments.select` came to; None = it lists them, or has no list yet."""
    accounts: Counts | None = None
    """Of the accounts that an account receiver holds; None = it is none, or did not say."""
    manifests: Mapping[str, AccountSaid] = field(default_factory=dict)
    """ExchangeAccounts that it knows of, by ``namespace/name``."""
    run: RunSaid | None = None
    """Of a backup, a drill or a restore under way; None = it is none, or did not say."""
    log: LogSaid | None = None
    """Of what uploads the database's log; likewise."""


def read_answer(document: Mapping[str, Any]) -> Answer:
    """Read a ``/health`` document of any service; what it lacks or has in another form is unknown."""
    dispatch, lease = mapping(document.get("dispatch")), mapping(document.get("lease"))
    waits = dispatch.get("standby") is True and lease.get("held") is not True
    standby = waits or mapping(document.get("leases")).get("held") == 0
    # One that waits for a lease has not loaded anything, which says nothing about Redis.
    redis = Server() if waits else _server(document, "redis")
    # A distributor that cannot ask knows no lag; a processor's grows on meanwhile.
    knows_lag = not standby and not (dispatch and redis.reachable is False)
    config = mapping(document.get("config"))
    connections = mapping(document.get("connections"))
    return Answer(
        ready=document.get("ready") is True,
        waiting_for=_sentence(mapping(document.get("waitingFor"))),
        standby=standby,
        config_hash=words(config.get("hash"))[:64],
        config_error=words(config.get("error")),
        redis=redis,
        postgres=_server(document, "postgres"),
        lag=lag_bucket(number(mapping(document.get("lag")).get("seconds"))) if knows_lag else None,
        connections=tuple(_connection(name, mapping(item)) for name, item in sorted(connections.items())[:MOST]),
        rejected=tuple(sorted(_rejected(connections.values())))[:MOST],
        selected=_selected(mapping(document.get("selection"))),
        accounts=read_counts(document.get("accounts")),
        manifests=read_accounts(document.get("manifests")),
        run=read_run(document.get("run")),
        log=read_log(document.get("backup")),
    )


def _server(document: Mapping[str, Any], name: str) -> Server:
    section = mapping(document.get(name))
    breaker = mapping(document.get("breaker"))
    # The processor has a breaker a server, the others one for Redis.
    own = mapping(breaker.get(name)) if name in breaker else breaker if name == "redis" else {}
    problem = words(section.get("problem") or section.get("lastError"))
    reachable = section.get("reachable")
    if not isinstance(reachable, bool):
        state = section.get("state")
        reachable = True if state in ("up", "connected") else False if state == "away" and problem else None
    return Server(reachable, problem if reachable is False else "", words(own.get("state")))


def _connection(name: str, section: Mapping[str, Any]) -> Connection:
    failure = mapping(section.get("failure"))
    opened, last = number(section.get("openSeconds")), number(section.get("lastDataSeconds"))
    fresh: bool | None = None
    age = ""
    # A connection of quiet instruments only is judged by what is usual of it.
    limit = max(FRESH, number(section.get("freshSeconds")) or FRESH)
    if opened is not None:
        silent = opened if last is None else last
        if last is not None and last < limit:
            fresh = True
        elif silent >= limit:
            fresh, age = False, age_bucket(silent)
    elif failure:
        fresh = False
    return Connection(
        name=str(name)[:64],
        open=opened is not None,
        host=words(failure.get("host")),
        cause=words(failure.get("cause")),
        detail=words(failure.get("detail")),
        last_end=words(section.get("lastEnd")) if failure or fresh is False else "",
        fresh=fresh,
        age=age,
        silent=tuple(sorted(_silent(section))),
    )


def _silent(section: Mapping[str, Any]) -> Iterable[str]:
    found = section.get("silent")
    for each in found if isinstance(found, list) else ():
        if topic := words(mapping(each).get("topic")):
            yield topic[:128]


def _selected(section: Mapping[str, Any]) -> int | None:
    found = section.get("instruments")
    return found if section.get("selecting") is True and isinstance(found, int) else None


def _rejected(connections: Iterable[Any]) -> set[str]:
    return {
        words(topic)[:128]
        for section in connections
        for topic in (mapping(section).get("rejected") or ())
        if isinstance(topic, str) and topic
    }


def _sentence(waiting_for: Mapping[str, Any]) -> str:
    return words("; ".join(str(why) or str(name) for name, why in sorted(waiting_for.items())))

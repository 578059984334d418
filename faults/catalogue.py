"""The faults: DESIGN's table, row by row. Each says what it does, in which world, and what it may cost."""

from __future__ import annotations

from collections.abc import Callable

from faults import account_rows, exchanges, postgres, rotation, sentinel, servers, services
from faults.judge import Promise
from faults.row import Fault, Scale


def _away(full: float, connects: int = 0) -> Callable[[Scale], Promise]:
    """Caught up within the outage's length, and no connection is made anew. Below 10 s the start of processes rules."""
    return lambda scale: Promise(connects=connects, catch_up=max(10.0, scale.seconds(full)))


def _connects(most: int) -> Callable[[Scale], Promise]:
    return lambda _: Promise(connects=most, catch_up=60.0)


def _nothing(_: Scale) -> Promise:
    """Something saw everything: no gap row at all."""
    return Promise(gap_rows=False, catch_up=30.0)


PROXIED = {"proxied": True}
REPLICAS = {"replicas": 2, "restart_cap": 0.1}
QUIET = {"silence": "5s"}
"""A silent connection is given up soon (a user's would wait longer: what is tested is not patience)."""

FAULTS = (
    # Redis
    Fault("redis-restart", "restarted in order", servers.away("redis", 0.0), _away(3), ordered=True),
    Fault("redis-away-3s", "stopped for 3 s", servers.away("redis", 3.0), _away(3), ordered=True),
    Fault("redis-away-60s", "stopped for 60 s", servers.away("redis", 60.0), _away(60), ordered=True),
    Fault(
        "redis-away-receiver-killed", "stopped for 60 s, the receiver killed in the middle",
        servers.redis_away_and_receiver_killed(60.0), _away(60, connects=1), ordered=True,
    ),
    Fault("redis-kill", "kill -9, three times", servers.killed("redis", 3), _away(3)),
    Fault("redis-aof-cut", "kill -9, and the end of its log is gone, three times", servers.redis_cut(3), _away(3)),
    Fault("redis-full", "maxmemory reached for 30 s", servers.redis_full(30.0), _away(30)),
    Fault("redis-flushed", "FLUSHALL: every stream gone", servers.redis_flushed, _away(3)),
    Fault("redis-failover", "failover to a replica that lagged 1 s", servers.redis_failover(1.0), _away(3), PROXIED),
    Fault("redis-failover-5s", "failover to one that lagged 5 s", servers.redis_failover(5.0), _away(3), PROXIED),
    Fault("redis-sentinel", "killed; Sentinel promotes the replica", sentinel.failover(0.0), _away(3), PROXIED),
    Fault(
        "redis-sentinel-behind", "the same, the replica 2 s behind", sentinel.failover(2.0), _away(3), PROXIED,
    ),
    Fault("redis-stall", "the network to it silent for 20 s", servers.stalled("redis", 20.0), _away(20), PROXIED),
    Fault("redis-slow", "every answer 50 ms late for 20 s", servers.slowed("redis", 20.0), _away(20), PROXIED),
    # PostgreSQL
    Fault("postgres-restart", "restarted in order", servers.away("postgres", 0.0), _away(3)),
    Fault("postgres-away-300s", "stopped for 5 min", servers.away("postgres", 300.0), _away(300)),
    Fault("postgres-kill", "kill -9, three times", servers.killed("postgres", 3), _away(3)),
    Fault("postgres-read-only", "read-only for 20 s", servers.postgres_read_only(20.0), _away(20)),
    Fault("postgres-standby", "failover to a standby, read-only for 5 s", postgres.failover(5.0), _away(5), PROXIED),
    Fault("postgres-full-up", "no connection to be had for 20 s", postgres.full_up(20.0), _away(20)),
    Fault("postgres-locked", "another holds the table of trades for 20 s", postgres.locked(20.0), _away(20)),
    Fault("postgres-stall", "the network to it silent for 20 s", servers.stalled("postgres", 20.0), _away(20), PROXIED),
    Fault("postgres-slow", "every answer 50 ms late for 20 s", servers.slowed("postgres", 20.0), _away(20), PROXIED),
    Fault(
        "poison-row", "a row that it refuses, driven again once it does not", servers.poison_row, _away(3),
        finish=servers.poison_redriven,
    ),
    # Secrets
    Fault("secret-redis", "its password rotates, twice", rotation.of_redis, _away(3), rotation.SETUP),
    Fault("secret-postgres", "its password rotates, twice", rotation.of_postgres, _away(3), rotation.SETUP),
    # Services
    Fault("receiver-kill", "kill -9, five times at any moment", services.killed("receiver", 5), _connects(5)),
    Fault("distributor-kill", "kill -9, five times at any moment", services.killed("distributor", 5), _nothing),
    Fault("processor-kill", "kill -9, five times at any moment", services.killed("processor", 5), _nothing),
    Fault(
        "replica-kills", "two receivers: kill -9 of either at random moments, 100 times", services.replicas_killed(100),
        lambda scale: Promise(connects=services.kills(100, scale), none_open=True, catch_up=30.0), REPLICAS,
    ),
    Fault(
        "replica-kills-starting", "two receivers: kill -9 of one while the other starts, 10 times",
        services.starting_replicas_killed(10),
        lambda scale: Promise(connects=2 * services.kills(10, scale), catch_up=30.0), REPLICAS,
    ),
    Fault("maintenance-kill", "kill -9, five times at any moment", services.killed("maintenance", 5), _nothing),
    Fault("receiver-pause", "SIGSTOP for 10 s", services.paused("receiver", 10.0), _connects(1)),
    Fault("distributor-pause", "SIGSTOP for 10 s", services.paused("distributor", 10.0), _nothing),
    Fault("processor-pause", "SIGSTOP for 10 s", services.paused("processor", 10.0), _nothing),
    # The exchange's connections
    Fault("exchange-close", "a clean close", exchanges.struck(kind="close"), _connects(1)),
    Fault("exchange-close-storm", "a clean close after each of 5 subscribes", exchanges.storm(5), _connects(7)),
    Fault("exchange-abort", "connection reset", exchanges.struck(kind="abort"), _connects(1)),
    Fault("exchange-silence", "connected, and nothing comes", exchanges.struck(kind="silence"), _connects(1), QUIET),
    Fault(
        "exchange-half-open", "nothing is read or answered either", exchanges.struck(kind="half_open"), _connects(1),
        QUIET,
    ),
    Fault(
        "exchange-24h-cut", "the end of the 24 hours, announced 3 s ahead", exchanges.struck(kind="cut", seconds=3.0),
        lambda _: Promise(connects=1, gap_rows=False, catch_up=30.0),
    ),
    Fault("exchange-24h-cut-sudden", "the same, announced as it happens", exchanges.struck(kind="cut"), _connects(1)),
    Fault(
        "exchange-renewals", "connections replaced by plan, six of each venue", exchanges.renewals(6),
        lambda _: Promise(connects=None, gap_rows=False, catch_up=30.0),
        {"venues": ("binance/Spot", "binance/UsdM", "deribit/Derivatives"), "lifetime": "4s"},
    ),
    Fault(
        "exchange-stall", "the network to it silent for 20 s", servers.stalled("exchange", 20.0), _connects(5),
        PROXIED | QUIET,
    ),
    # The exchange's messages
    Fault("message-drop", "trades and book changes left out", exchanges.dropped(5), _connects(0)),
    Fault("message-double", "messages sent twice", exchanges.repeated("double", 20), _nothing),
    Fault("message-swap", "messages change places", exchanges.repeated("swap", 20), _connects(0)),
    Fault("message-bad-bytes", "messages that cannot be read", exchanges.bad_bytes(10), _nothing),
    Fault("message-unknown-fields", "messages with fields more", exchanges.repeated("unknown_fields", 50), _nothing),
    # Limits
    Fault(
        "spill-full", "Redis away for 30 s with room for 1 MiB of it", servers.away("redis", 30.0), _away(30),
        {"spill": "1Mi"}, tight=True, finish=servers.was_shed,
    ),
    Fault(
        "disk-full", "Redis away for 30 s, 1 MiB left on the disk", servers.disk_full(30.0, 1), _away(30, connects=1),
        tight=True, finish=servers.was_shed,
    ),
    Fault("burst", "as fast as it is read, 20 s worth of messages", exchanges.burst(20.0), _nothing, blast=True),
    # Accounts
    *account_rows.FAULTS,
)  # fmt: skip
SHORT = ("redis-kill", "exchange-abort", "message-bad-bytes", "account-members-killed")
"""What ``make test`` runs."""


def chosen(only: list[str] | None, begin: str | None = None) -> list[Fault]:
    """By name or beginning of a name; raises SystemExit with the names when one fits none. ``begin``: the first one."""
    names = [fault.name for fault in FAULTS]
    if begin is not None and begin not in names:
        raise SystemExit(f"--from {begin}: no such fault; there are {', '.join(names)}")
    found = _named(only) if only else list(FAULTS)
    return [fault for fault in found if begin is None or names.index(fault.name) >= names.index(begin)]


def _named(only: list[str]) -> list[Fault]:
    names = {fault.name for fault in FAULTS}
    wanted: set[str] = set()
    for prefix in only:
        found = {prefix} if prefix in names else {name for name in names if name.startswith(prefix)}
        if not found:
            raise SystemExit(f"--only {prefix}: no fault begins so; there are {', '.join(f.name for f in FAULTS)}")
        wanted |= found
    return [fault for fault in FAULTS if fault.name in wanted]

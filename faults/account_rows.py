"""The rows of account events: six accounts of three exchanges beside the market's flow, a pool of two members."""

from __future__ import annotations

from collections.abc import Callable

from faults import account_faults as faults
from faults import servers
from faults.judge import Promise
from faults.row import Fault, Scale

ALL = {"venues": ("binance/Spot", "binance/UsdM", "deribit/Derivatives"), "accounts": 2}
"""Two accounts of each."""
SOON = ALL | {"venues": ("binance/Spot", "deribit/Derivatives")}
"""Whose silence is noticed within a minute: USD-M pings every three."""
FEW = {"venues": ("binance/Spot",), "accounts": 2}
PROXIED = ALL | {"proxied": True}
QUICK = {"restart_cap": 0.1}
"""Whoever is killed is back at once."""


def _within(seconds: float) -> Callable[[Scale], Promise]:
    """Up to date again so many seconds after the fault's end, at least half a minute: asking takes its time."""
    return lambda scale: Promise(connects=None, catch_up=max(30.0, scale.seconds(seconds)))


def _limited(_: Scale) -> Promise:
    """So much is asked for that the rest of a venue's minute may have to be waited for."""
    return Promise(connects=None, catch_up=75.0)


FAULTS = (
    Fault("account-redis-restart", "Redis restarted in order", servers.away("redis", 0.0), _within(0), ALL),
    Fault("account-redis-away", "Redis stopped for 30 s", servers.away("redis", 30.0), _within(30), ALL),
    Fault(
        "account-redis-away-killed", "Redis stopped for 30 s, both members killed in the middle",
        faults.server_away_all_killed("redis", 30.0), _within(60), ALL | QUICK,
    ),
    Fault("account-redis-kill", "kill -9 of Redis, three times", servers.killed("redis", 3), _within(0), ALL),
    Fault(
        "account-redis-aof-cut", "the same, and the end of its log is gone", servers.redis_cut(3), _within(0), ALL,
    ),
    Fault("account-redis-full", "maxmemory of Redis reached for 20 s", servers.redis_full(20.0), _within(20), ALL),
    Fault("account-redis-flushed", "FLUSHALL: every stream gone", servers.redis_flushed, _limited, ALL),
    Fault(
        "account-redis-stall", "the network to Redis silent for 20 s", servers.stalled("redis", 20.0), _within(20),
        PROXIED,
    ),
    Fault(
        "account-postgres-away", "PostgreSQL stopped for 30 s", servers.away("postgres", 30.0), _within(30), ALL,
    ),
    Fault(
        "account-postgres-away-killed", "PostgreSQL stopped for 30 s, both members killed in the middle",
        faults.server_away_all_killed("postgres", 30.0), _within(60), ALL | QUICK,
    ),
    Fault(
        "account-postgres-kill", "kill -9 of PostgreSQL, three times", servers.killed("postgres", 3), _within(0), ALL,
    ),
    Fault(
        "account-postgres-stall", "the network to PostgreSQL silent for 20 s", servers.stalled("postgres", 20.0),
        _within(20), PROXIED,
    ),
    Fault("account-member-kill", "kill -9 of one of two members, five times", faults.one_killed(5), _limited, ALL),
    Fault(
        "account-members-killed", "kill -9 of both members at once, twice", faults.all_killed(2), _limited, FEW | QUICK,
    ),
    Fault(
        "account-member-pause", "SIGSTOP of one of two members for 40 s", faults.one_paused(40.0), _within(0), ALL,
    ),
    Fault("account-close", "a clean close of every connection", faults.struck(kind="close"), _within(0), ALL),
    Fault("account-abort", "every connection reset", faults.struck(kind="abort"), _within(0), ALL),
    Fault(
        "account-half-open", "nothing is sent, read or answered", faults.struck(kind="half_open"), _within(0), SOON,
    ),
    Fault(
        "account-session-expired", "listen keys, tokens, subscriptions end before their time", faults.session_expired,
        _within(0), ALL,
    ),
    Fault("account-rate-limited", "reset, and REST refuses for 10 s", faults.rate_limited, _within(60), ALL),
    Fault("account-key-rotated", "a new key for every account, twice", faults.keys_rotated, _within(0), ALL),
    Fault("account-double", "messages sent twice", faults.messages("double", 20), _within(0), ALL),
    Fault(
        "account-bad-bytes", "messages that cannot be read", faults.messages("bad_bytes", 1, variant="cut"),
        _limited, ALL,
    ),
    Fault(
        "account-unknown-fields", "messages with fields more", faults.messages("unknown_fields", 50), _within(0), ALL,
    ),
)  # fmt: skip

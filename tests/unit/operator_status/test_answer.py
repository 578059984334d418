"""A service's /health, cut down: coarse, comparable, and unknown where it says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.shared.health import Health
from feedmill.shared.log import register_secret
from feedmill_operator.reconcile.answer import Answer, Connection, Server, age_bucket, lag_bucket, read_answer


def receiver(**connection: Any) -> dict[str, Any]:
    return {
        "service": "receiver",
        "ready": True,
        "waitingFor": {},
        "connections": {
            "stream-0": {"state": "open", "topics": 2, "openSeconds": 100.0, "lastDataSeconds": 0.5, "rejected": []}
            | connection
        },
        "redis": {"server": "redis://r:6379/0", "state": "up", "since": 3.0, "problem": ""},
        "breaker": {"state": "closed", "failures": 0},
        "config": {"hash": "abc", "loadedAt": "x", "error": None, "pending": False},
    }


DISTRIBUTOR = {
    "service": "distributor",
    "ready": True,
    "waitingFor": {},
    "dispatch": {"standby": True, "lastError": ""},
    "lease": {"held": True, "holder": "me", "lastError": ""},
    "lag": {"seconds": 3.0},
    "redis": {"state": "connected", "problem": ""},
    "breaker": {"state": "closed"},
}
PROCESSOR = {
    "service": "processor",
    "ready": True,
    "waitingFor": {},
    "lag": {"commits": 3, "seconds": 70.0},
    "leases": {"held": 2},
    "redis": {"reachable": True, "lastError": ""},
    "postgres": {"reachable": False, "lastError": "ConnectionRefusedError: nothing there"},
    "breaker": {"redis": {"state": "closed"}, "postgres": {"state": "open"}},
}


@pytest.mark.parametrize(
    ("said", "fresh"),
    [
        ({"lastDataSeconds": 59.0}, True),
        ({"lastDataSeconds": 61.0}, False),
        ({"lastDataSeconds": 61.0, "freshSeconds": 60.0}, False),
        ({"lastDataSeconds": 699.0, "freshSeconds": 700.0}, True),
        ({"lastDataSeconds": 701.0, "freshSeconds": 700.0}, False),
        ({"lastDataSeconds": 59.0, "freshSeconds": 1.0}, True),
        ({"lastDataSeconds": 61.0, "freshSeconds": "long"}, False),
    ],
)
def test_a_connection_is_fresh_by_what_is_usual_of_it(said: dict[str, Any], fresh: bool) -> None:
    (found,) = read_answer(receiver(openSeconds=5000.0, **said)).connections
    assert found.fresh is fresh


def test_topics_that_are_silent_are_named() -> None:
    shown = [{"topic": "b@trade", "seconds": 400.0, "usualSeconds": 9.0}, {"topic": "a@trade", "seconds": 90.0}]
    (found,) = read_answer(receiver(silent=shown, silentTopics=2)).connections
    assert (found.silent, found.fresh) == (("a@trade", "b@trade"), True)
    for nonsense in (None, 7, "b", [3, {}, {"topic": 3}]):
        (found,) = read_answer(receiver(silent=nonsense)).connections
        assert found.silent == ()


def test_a_receiver() -> None:
    assert read_answer(receiver()) == Answer(
        ready=True,
        config_hash="abc",
        redis=Server(True, "", "closed"),
        connections=(Connection("stream-0", open=True, fresh=True),),
    )


@pytest.mark.parametrize(
    ("section", "selected"),
    [
        ({"selecting": True, "instruments": 37}, 37),
        ({"selecting": True, "instruments": None}, None),
        ({"selecting": False, "instruments": 2}, None),
        ({"selecting": True, "instruments": "many"}, None),
        ("none", None),
    ],
)
def test_how_many_were_selected(section: Any, selected: int | None) -> None:
    assert read_answer(receiver() | {"selection": section}).selected == selected


def test_a_processor() -> None:
    assert read_answer(PROCESSOR) == Answer(
        ready=True,
        redis=Server(True, "", "closed"),
        postgres=Server(False, "ConnectionRefusedError: nothing there", "open"),
        lag="<10m",
    )


def test_a_distributor() -> None:
    assert read_answer(DISTRIBUTOR) == Answer(ready=True, redis=Server(True, "", "closed"), lag="<10s")


def test_figures_that_move_are_no_news() -> None:
    other = receiver(openSeconds=4711.0, lastDataSeconds=59.0, frames=10**9, framesPerSecond=12345.6)
    other["redis"]["since"] = 99.0
    assert read_answer(other) == read_answer(receiver())


def test_one_that_stands_by_says_nothing_of_redis_and_lag() -> None:
    waits = DISTRIBUTOR | {
        "lease": {"held": False, "holder": "other"},
        "redis": {"state": "away", "problem": "not loaded"},
        "lag": {"seconds": 0.0},
    }
    assert read_answer(waits) == Answer(ready=True, standby=True, redis=Server())


def test_a_processor_without_shards_knows_no_lag() -> None:
    found = read_answer(PROCESSOR | {"leases": {"held": 0}, "lag": {"commits": 0, "seconds": 0.0}})
    assert found.standby
    assert found.lag is None
    assert found.redis.reachable


def test_a_distributor_that_cannot_ask_knows_no_lag() -> None:
    found = read_answer(DISTRIBUTOR | {"redis": {"state": "away", "problem": "refused"}, "lag": {"seconds": 0.0}})
    assert found.redis == Server(False, "refused", "closed")
    assert found.lag is None


@pytest.mark.parametrize(
    ("section", "fresh", "age"),
    [
        ({"lastDataSeconds": 60.0}, False, "1 minute"),
        ({"lastDataSeconds": 5000.0}, False, "1 hour"),
        ({"lastDataSeconds": None, "openSeconds": 5.0}, None, ""),
        ({"lastDataSeconds": None, "openSeconds": 700.0}, False, "10 minutes"),
    ],
)
def test_freshness(section: dict[str, Any], fresh: bool | None, age: str) -> None:
    connection = read_answer(receiver(**section)).connections[0]
    assert (connection.fresh, connection.age) == (fresh, age)


def test_a_connection_that_cannot_be_made() -> None:
    document = receiver()
    document["connections"] = {
        "b": {
            "state": "backoff",
            "failure": {"host": "h:443", "cause": "tls", "detail": "expired"},
            "lastEnd": "abort",
        },
        "a": {"state": "connecting"},
    }
    assert read_answer(document).connections == (
        Connection("a"),
        Connection("b", host="h:443", cause="tls", detail="expired", last_end="abort", fresh=False),
    )


def test_what_is_refused_and_what_is_waited_for() -> None:
    document = receiver(rejected=["b", "a"]) | {"ready": False, "waitingFor": {"capturing": "1 topic waits", "x": ""}}
    found = read_answer(document)
    assert found.rejected == ("a", "b")
    assert found.waiting_for == "1 topic waits; x"


def test_secrets_are_not_repeated() -> None:
    register_secret("correct-horse")
    document = PROCESSOR | {"postgres": {"reachable": False, "lastError": "postgresql://u:correct-horse@h/d refused"}}
    assert "correct-horse" not in str(read_answer(document))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"ready": "yes", "waitingFor": [], "connections": [1], "redis": "up", "breaker": 1, "config": None, "lag": []},
        {"connections": {"a": None, "b": {"rejected": "x", "openSeconds": True}}, "lag": {"seconds": "many"}},
        Health("new").document(),
    ],
)
def test_forms_nobody_knows_are_unknown(document: dict[str, Any]) -> None:
    found = read_answer(document)
    assert found.redis.reachable is None
    assert found.lag is None
    assert found.config_hash == ""
    assert all(connection.fresh is None for connection in found.connections)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (None, None),
        (0.0, "<1s"),
        (0.99, "<1s"),
        (1.0, "<10s"),
        (59, "<1m"),
        (60, "<10m"),
        (600, ">=10m"),
        (1e9, ">=10m"),
    ],
)
def test_lag_buckets(seconds: float | None, bucket: str | None) -> None:
    assert lag_bucket(seconds) == bucket


def test_age_buckets() -> None:
    assert [age_bucket(x) for x in (1, 61, 601, 3601, 90000)] == [
        "some seconds", "1 minute", "10 minutes", "1 hour", "1 day",
    ]  # fmt: skip

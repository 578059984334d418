"""What metrics and health say: unknown is never 0, and nothing is counted twice."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from feedmill.processor import finish_sql, status
from feedmill.processor.batch import Batch, Sample
from feedmill.processor.measures import Figures, Meter, ShardFigures, _seconds_or_nan
from feedmill.processor.rows import Rows
from feedmill.processor.store import Outcome
from feedmill.processor.writer import Stored
from feedmill.shared.breaker import Breaker
from feedmill.shared.clock import now_ns


def test_the_lag_of_a_shard() -> None:
    shard = ShardFigures()
    assert shard.document()["lagSeconds"] is None
    assert math.isnan(_seconds_or_nan(shard))
    shard.oldest_ms = 0
    assert shard.document()["lagSeconds"] == _seconds_or_nan(shard) == 0.0
    shard.oldest_ms = now_ns() // 1_000_000 - 5000
    assert 5 <= shard.document()["lagSeconds"] < 60
    shard.owned = shard.working = True
    shard.give_up()
    assert (shard.owned, shard.working, shard.document()["lagSeconds"]) == (False, False, None)


def test_the_lag_of_the_process_is_that_of_its_own_shards() -> None:
    figures = Figures()
    assert figures.lag() == {"commits": 0, "seconds": 0.0}
    figures.shards = {
        "a": ShardFigures(owned=True, behind=3, oldest_ms=now_ns() // 1_000_000 - 9000),
        "b": ShardFigures(owned=True, behind=0, oldest_ms=0),
        "c": ShardFigures(owned=False),
    }
    assert figures.lag()["commits"] == 3
    assert 9 <= figures.lag()["seconds"] < 60
    figures.shards["b"].oldest_ms = None
    assert figures.lag() == {"commits": 3, "seconds": None}


def test_what_a_commit_did() -> None:
    figures = Figures()
    meter = Meter("test.figures.0", "binance", "Spot", figures)
    batch = Batch(rows=Rows(trades=["x"] * 5), samples=[Sample(now_ns() - 10**9, now_ns() - 10**6, 5), Sample(0, 1, 2)])
    batch.stand(7, "a7", "7-0")
    stored = Stored()
    stored.count("trades", 5, 3)
    outcome = Outcome(stored, {("trades", "too_old"): 2}, Counter({"trade_too_old": 2, "undecodable": 1}))
    meter.committed(batch, outcome, 0.01)
    shown = figures.of("test.figures.0").document()
    assert {key: shown[key] for key in ("commit", "commits", "rows", "duplicates", "deadLetters", "refused")} == {
        "commit": 7,
        "commits": 1,
        "rows": 3,
        "duplicates": 2,
        "deadLetters": 3,
        "refused": 2,
    }
    stretches = figures.latencies.document()["binance/Spot"]
    assert (stretches["exchangeToCommit"]["count"], stretches["receiveToCommit"]["count"]) == (5, 7)


def test_a_shard_that_was_given_up_has_no_lag_in_the_metrics() -> None:
    figures = Figures()
    meter = Meter("test.given.0", "toy", "Given", figures)

    def shown(what: str) -> float:
        found = REGISTRY.get_sample_value(f"feedmill_processor_lag_{what}", {"shard": "test.given.0"})
        assert found is not None
        return found

    assert math.isnan(shown("commits"))
    meter.lag(500, 1)
    assert shown("commits") == 500
    assert shown("seconds") > 0
    figures.of("test.given.0").give_up()
    assert math.isnan(shown("commits"))
    assert math.isnan(shown("seconds"))
    meter.close()


def test_servers() -> None:
    figures = Figures()
    assert figures.servers["redis"].document() == {"reachable": None, "lastError": ""}
    figures.failed("redis", "away")
    assert figures.servers["redis"].document() == {"reachable": False, "lastError": "away"}
    figures.answered("redis")
    assert figures.servers["redis"].document() == {"reachable": True, "lastError": ""}


def seat(*, held: bool = False, holder: str = "", **figures: Any) -> Any:
    shard = SimpleNamespace(ref="test.spot.0")
    lease = SimpleNamespace(held=held, holder=holder)
    return SimpleNamespace(shard=shard, lease=lease, figures=ShardFigures(**figures))


@pytest.mark.parametrize(
    ("owned", "link_error", "redis", "postgres"),
    [
        (True, "", (False, "redis went away"), (False, "postgres went away")),
        # Another process has the shard now: what is known of Redis is what the leases know.
        (False, "", (True, ""), (None, "")),
        (False, "no route", (False, "no route"), (None, "")),
    ],
)
def test_one_that_has_no_shard_does_not_tell_of_former_failures(
    owned: bool, link_error: str, redis: tuple[bool, str], postgres: tuple[bool | None, str]
) -> None:
    figures = Figures()
    for server in ("redis", "postgres"):
        figures.failed(server, f"{server} went away")
    processor: Any = SimpleNamespace(
        figures=figures,
        seats=[seat(owned=owned)],
        share=SimpleNamespace(alive=2),
        link=SimpleNamespace(error=link_error),
        postgres=Breaker("postgres"),
    )
    for read, (reachable, error) in ((status.redis, redis), (status.postgres, postgres)):
        section = read(processor)
        assert (section["reachable"], section["lastError"]) == (reachable, error)
        shown = status._up(section)
        assert math.isnan(shown) if reachable is None else shown == reachable


@pytest.mark.parametrize(
    ("seats", "share", "why"),
    [
        ([], {"alive": None}, None),
        ([seat()], {"alive": None}, "Redis did not answer yet (away)"),
        ([seat(held=True, working=True)], {}, None),
        ([seat(held=True)], {}, "shard test.spot.0: not connected"),
        ([seat(held=True, error="postgres: away")], {}, "shard test.spot.0: not connected (postgres: away)"),
        ([seat(held=True, working=True, fault="KeyError: 'x'")], {}, "shard test.spot.0: KeyError: 'x'"),
        ([seat(holder="r1")], {"held": 0}, None),
        ([seat(), seat(held=True, working=True)], {}, "1 shards have no processor yet"),
        ([seat(), seat(held=True, working=True)], {"allowed": 1}, None),
    ],
)
def test_ready(seats: list[Any], share: dict[str, Any], why: str | None) -> None:
    values = {"alive": 1, "held": 1, "allowed": 2} | share
    link = SimpleNamespace(error="away" if values["alive"] is None else "")
    processor: Any = SimpleNamespace(seats=seats, share=SimpleNamespace(**values), link=link)
    assert status.working(processor) == (why is None, why or "")


def test_the_comparison_with_the_venue_is_chosen_by_what_is_comparable() -> None:
    assert finish_sql.compare({}) == ""
    assert finish_sql.compare({"open": "raw", "nothing": True, "close": False}) == ""
    plain = finish_sql.compare({"open": True, "trades": True})
    assert "v.open IS NOT DISTINCT FROM c.open AND v.trades IS NOT DISTINCT FROM c.trades AS agrees" in plain
    assert "FROM trades" not in plain
    raw = finish_sql.compare({"trades": "raw", "volume": True})
    assert "v.volume IS NOT DISTINCT FROM c.volume AND v.trades IS NOT DISTINCT FROM CASE" in raw
    assert "FROM trades t" in raw


def test_the_statements_differ_by_what_proves_completeness() -> None:
    for dense, gapless in (
        (finish_sql.JUDGE_DENSE, finish_sql.JUDGE_GAPLESS),
        (finish_sql.FILL_DENSE, finish_sql.FILL_GAPLESS),
    ):
        assert "FROM gaps" in gapless
        assert "FROM gaps" not in dense
        assert "last_id + 1" in dense
    for statement in (finish_sql.ROLL_UP, finish_sql.JUDGE_DENSE, finish_sql.FILL_GAPLESS, finish_sql.BOTH):
        assert "{" not in statement

"""Following files: what is taken up, what is refused, and what changes in place."""

from __future__ import annotations

import asyncio
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from feedmill.exchanges.base import ChannelName, Subscription
from feedmill.exchanges.binance_spot.feed import SpotFeed
from feedmill.receiver.supervisor import plan_sockets, reassign
from feedmill.resources.collection import Resources
from feedmill.resources.confighash import config_hash
from feedmill.resources.load import load_read, read_files
from feedmill.shared import log, reload
from feedmill.shared.breaker import Breaker
from feedmill.shared.budget import ByteBudget
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.reload import ConfigWatch, Refused, reloads, same_feed, same_pipeline

FEED = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec: {redis: {managed: {}}, postgres: {managed: {}}}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: spot}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  instruments: {symbols: [BTC-USDT, ETH-USDT, SOL-USDT]}
  channels: [{name: Trades}]
"""


class Quiet:
    def __getattr__(self, _: str) -> Any:
        return lambda *args, **more: None


class Watched:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "resources.yaml"
        self.path.write_text(FEED)
        self.applied: list[Resources] = []
        self.error: Exception | None = None
        self.watch = ConfigWatch((self.path,), read_files([self.path]), self._apply, Quiet())

    async def _apply(self, resources: Resources) -> None:
        assert self.watch.document()["pending"]
        if self.error is not None:
            raise self.error
        self.applied.append(resources)


async def test_the_hash_is_that_of_what_is_worked_with(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watch = watched.watch
    first = config_hash({"resources.yaml": FEED})
    assert watch.hash == first
    await watch.look()
    assert watched.applied == []
    newer = FEED.replace("SOL-USDT", "XRP-USDT")
    watched.path.write_text(newer)
    await watch.look()
    await watch.look()
    assert len(watched.applied) == 1
    second = config_hash({"resources.yaml": newer})
    assert watch.document() | {"loadedAt": ""} == {"hash": second, "loadedAt": "", "error": "", "pending": False}
    for error in (Refused("no such thing"), RuntimeError("a fault")):
        watched.error = error
        watched.path.write_text(f"{newer}# {error}\n")
        await watch.look()
        assert watch.hash == second
        assert str(error) in watch.error
        assert not watch.pending
    watched.path.write_text("kind: [")
    await watch.look()
    assert "resources.yaml" in watch.error
    watched.path.write_text(newer)  # Undone: nothing is to be taken up.
    await watch.look()
    assert (watch.error, watch.hash, len(watched.applied)) == ("", second, 1)


async def test_what_the_service_refused_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a Secret that the manifest names may come after it. What cannot be read has to change first."""
    watched = Watched(tmp_path)
    watch = watched.watch
    watched.path.write_text(FEED.replace("SOL-USDT", "XRP-USDT"))
    watched.error = Refused("secrets/telegram/token: there is no such file")
    tries, refused = 0, reloads.labels("refused")

    async def apply(resources: Resources) -> None:
        nonlocal tries
        tries += 1
        await watched._apply(resources)

    monkeypatch.setattr(watch, "_apply", apply)
    before = refused._value.get()
    await watch.look()
    await watch.look()
    assert (tries, refused._value.get() - before) == (1, 1), "not yet"
    monkeypatch.setattr(reload, "APPLY_AGAIN", 0.0)
    watch._again_at = 0.0
    await watch.look()
    assert (tries, refused._value.get() - before) == (2, 1), "the same again is no news"
    watched.error = None
    await watch.look()
    assert (tries, watch.error, len(watched.applied)) == (3, "", 1)
    await watch.look()
    watched.path.write_text("kind: [")
    await watch.look()
    await watch.look()
    assert tries == 3
    assert "resources.yaml" in watch.error


async def test_a_file_that_is_away_for_a_moment_is_no_news(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.path.unlink()
    await watched.watch.look()
    assert watched.watch.error == ""
    await watched.watch.look()
    assert "there is no such file" in watched.watch.error
    watched.path.write_text(FEED)
    await watched.watch.look()
    assert watched.watch.error == ""


async def test_the_swap_of_a_symlink_with_the_same_content_is_no_change(tmp_path: Path) -> None:
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "resources.yaml").write_text(FEED)
    (tmp_path / "data").symlink_to("1")
    path = tmp_path / "data" / "resources.yaml"
    before = read_files([path])
    os.symlink("2", tmp_path / "new")
    (tmp_path / "new").replace(tmp_path / "data")
    assert read_files([path]) == before


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("market: Spot", "market: UsdM", "spec.exchange.market changed from Spot to UsdM"),
        (
            "name: binance, market: Spot",
            "name: binance, market: Spot, environment: Testnet",
            "spec.exchange.environment",
        ),
        ("channels:", "receiver: {shards: 2}\n  channels:", "spec.receiver.shards changed from 1 to 2"),
        ("{name: spot}", "{name: other}", "ExchangeFeed default/spot is no longer in the files"),
    ],
)
def test_what_a_running_process_does_not_follow(tmp_path: Path, before: str, after: str, said: str) -> None:
    path = tmp_path / "resources.yaml"
    path.write_text(FEED)
    feed = load_read(read_files([path])).feeds["default", "spot"]
    path.write_text(FEED.replace(before, after))
    newer = load_read(read_files([path]))
    with pytest.raises(Refused, match=said):
        same_feed(newer, feed)
    with pytest.raises(Refused, match="FeedPipeline default/none"):
        same_pipeline(newer, ("default", "none"))


def wanted(*symbols: str) -> list[Subscription]:
    return [Subscription(symbol, symbol.replace("-", ""), ChannelName.TRADES) for symbol in symbols]


class SmallFeed(SpotFeed):
    limits = SpotFeed.limits.__class__(**{
        name: 2 if name == "topics_per_connection" else getattr(SpotFeed.limits, name)
        for name in SpotFeed.limits.__dataclass_fields__
    })  # fmt: skip


def carried(plans: Any) -> dict[str, list[str]]:
    return {plan.name: [topic.subscription.symbol for topic in plan.topics] for plan in plans}


def test_topics_stay_on_their_sockets() -> None:
    feed = SmallFeed("wss://x")
    plans = plan_sockets(feed, wanted("A-B", "C-D", "E-F", "G-H"))
    assert carried(plans) == {"stream-1": ["A-B", "C-D"], "stream-2": ["E-F", "G-H"]}
    plans = reassign(feed, plans, wanted("A-B", "G-H", "I-J"))
    assert carried(plans) == {"stream-1": ["A-B", "I-J"], "stream-2": ["G-H"]}
    plans = reassign(feed, plans, wanted("A-B", "I-J", "K-L", "M-N"))
    assert carried(plans) == {"stream-1": ["A-B", "I-J"], "stream-2": ["K-L", "M-N"]}
    plans = reassign(feed, plans, wanted("A-B", "I-J", "K-L", "M-N", "O-P"))
    assert carried(plans) == {"stream-1": ["A-B", "I-J"], "stream-2": ["K-L", "M-N"], "stream": ["O-P"]}
    plans = reassign(feed, plans, wanted("K-L"))
    assert carried(plans) == {"stream-2": ["K-L"]}
    assert reassign(feed, plans, []) == []
    assert carried(reassign(feed, [], wanted("A-B"))) == {"stream": ["A-B"]}


def test_the_log_level_is_followed_by_loggers_there_are() -> None:
    out = io.StringIO()
    finish = log.configure("test", level="warning", json=True, stream=out)
    bound = log.get_logger().bind(part="x")
    bound.info("one")
    log.set_level("info")
    bound.info("two")
    log.set_level("error")
    bound.warning("three")
    bound.error("four")
    finish()
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["two", "four"]


async def test_limits_change_in_place() -> None:
    budget = ByteBudget(100)
    told: list[bool] = []
    budget.listen(told.append)
    budget.add(80)
    budget.resize(50)
    budget.resize(60)
    budget.resize(200)
    assert told == [True, False]
    breaker = Breaker("x", fail_max=3, reset_timeout=30.0)
    breaker.limit(1, 5.0)
    breaker.admit().failure(OSError("away"))
    assert breaker.state == "open"
    assert breaker.retry_in <= 5.0
    await asyncio.sleep(0)


def test_urls_become_others_for_all_who_hold_them() -> None:
    url = RedisUrl.parse("redis://:old-password@h:1/2")
    held = url
    url.become(RedisUrl.parse("rediss://me:new-password@g:3/4"))
    assert held == RedisUrl.parse("rediss://me:new-password@g:3/4")
    assert held.life == 1
    database = DatabaseUrl("postgresql://me:old-password@h/d")
    database.become("postgresql://me:new-password@h/d")
    assert database.get() == "postgresql://me:new-password@h/d"
    assert "password" not in f"{database!r} {database} {held!r} {held}"

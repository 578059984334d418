"""Sessions and connections: what covers what, and what is told when that changes."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.distributor.sources import REMEMBERED, Sources
from feedmill.shared import control
from feedmill.shared.control import TopicRef


class Told:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def covered(self, topic: TopicRef, source: str, at_ns: int) -> None:
        self.calls.append(("covered", topic.channel, source))

    def lost(self, topic: TopicRef, source: str, cause: str, at_ns: int, others: list[str]) -> None:
        self.calls.append(("lost", topic.channel, source, cause, others))

    def take(self) -> list[tuple[Any, ...]]:
        calls, self.calls = self.calls, []
        return calls


A, B = "r0-000000000001aaaaaa", "r1-000000000001bbbbbb"
TRADES = TopicRef("S", "s", "Trades", "s@trade")
TICKER = TopicRef("S", "s", "Ticker", "s@ticker")


def begin(*sessions: str) -> tuple[Sources, Told]:
    told = Told()
    sources = Sources(told)
    for session in sessions or (A,):
        sources.batch(session, 1, 0, 0.0)
        sources.apply(session, control.Session(session, session[:2], "1", 1), 0)
        sources.apply(session, control.Connected(1, "stream"), 0)
        sources.apply(session, control.Subscribed(1, [TRADES]), 0)
    told.take()
    return sources, told


def test_a_subscription_covers_once_and_a_disconnect_ends_it() -> None:
    sources, told = begin()
    sources.apply(A, control.Subscribed(1, [TRADES, TICKER]), 0)
    assert told.take() == [("covered", "Ticker", f"{A}/1")]
    sources.apply(A, control.Disconnected(1, "aborted"), 0)
    assert sorted(told.take()) == [
        ("lost", "Ticker", f"{A}/1", "disconnected", []), ("lost", "Trades", f"{A}/1", "disconnected", []),
    ]  # fmt: skip
    assert not sources.is_live(f"{A}/1")
    sources.apply(A, control.Disconnected(1, "aborted"), 0)
    assert not told.take()


def test_replicas_cover_for_each_other() -> None:
    sources, told = begin(A, B)
    assert sources.live(TRADES) == [f"{A}/1", f"{B}/1"]
    sources.apply(A, control.Disconnected(1, "closed"), 0)
    assert told.take() == [("lost", "Trades", f"{A}/1", "disconnected", [f"{B}/1"])]


def test_the_order_of_make_before_break() -> None:
    sources, told = begin()
    sources.apply(A, control.Connected(2, "stream"), 0)
    sources.apply(A, control.Subscribed(2, [TRADES]), 0)
    sources.apply(A, control.Disconnected(1, "planned"), 0)
    assert told.take() == [
        ("covered", "Trades", f"{A}/2"), ("lost", "Trades", f"{A}/1", "disconnected", [f"{A}/2"]),
    ]  # fmt: skip


@pytest.mark.parametrize("record", [control.Unsubscribed(1, [TRADES]), control.Rejected(1, [TRADES], "no")])
def test_a_topic_can_end_alone(record: control.AnyControl) -> None:
    sources, told = begin()
    sources.apply(A, record, 0)
    assert told.take() == [("lost", "Trades", f"{A}/1", "unsubscribed", [])]
    assert sources.is_live(f"{A}/1")
    sources.apply(A, record, 0)
    assert not told.take()


def test_shedding_is_a_loss_of_that_connection_which_goes_on() -> None:
    sources, told = begin(A, B)
    sources.apply(A, control.Shed(1, 5, 100, 0, 0), 0)
    assert told.take() == [("lost", "Trades", f"{A}/1", "shed", [f"{B}/1"]), ("covered", "Trades", f"{A}/1")]
    sources.apply(A, control.Shed(7, 5, 100, 0, 0), 0)  # One that is not known.
    assert not told.take()
    sources.apply(A, control.Shed(0, 5, 100, 0, 0), 0)  # All of the session.
    assert [call[0] for call in told.take()] == ["lost", "covered"]


def test_a_batch_again_is_known_and_a_jump_is_a_loss() -> None:
    sources, told = begin()
    assert not sources.batch(A, 1, 0, 0.0)
    assert sources.batch(A, 2, 0, 0.0)
    assert not told.take()
    assert sources.batch(A, 4, 0, 0.0)
    assert told.take() == [("lost", "Trades", f"{A}/1", "redis_lost", []), ("covered", "Trades", f"{A}/1")]
    assert not sources.batch(A, 3, 0, 0.0)


def test_a_newer_session_of_the_replica_ends_the_older_one() -> None:
    sources, told = begin(A, B)
    newer = "r0-000000000002cccccc"
    sources.batch(newer, 1, 0, 0.0)
    sources.apply(newer, control.Session(newer, "r0", "1", 2), 0)
    assert told.take() == [("lost", "Trades", f"{A}/1", "session_lost", [f"{B}/1"])]
    assert set(sources.sessions) == {newer, B}
    assert A in sources.gone
    assert not sources.batch(A, 1, 0, 0.0)  # Its number is still known.


def test_what_is_left_of_an_ended_session_is_data_but_covers_nothing() -> None:
    sources, told = begin()
    newer = "r0-000000000002cccccc"
    sources.batch(newer, 1, 0, 0.0)
    sources.apply(newer, control.Session(newer, "r0", "1", 2), 0)
    told.take()
    assert sources.batch(A, 2, 0, 0.0)
    assert sources.batch(A, 5, 0, 0.0)  # No connection of it can lose anything.
    assert not sources.batch(A, 4, 0, 0.0)
    assert set(sources.sessions) == {newer}
    assert not told.take()


def test_a_session_that_names_the_one_it_replaces_ends_it() -> None:
    sources, told = begin()
    other = "x-000000000000cccccc"
    sources.batch(other, 1, 0, 0.0)
    sources.apply(other, control.Session(other, "x", "1", 0, lost_session=A), 0)
    assert [call[:4] for call in told.take()] == [("lost", "Trades", f"{A}/1", "session_lost")]


def test_an_orderly_end_ends_what_is_still_open() -> None:
    sources, told = begin()
    sources.apply(A, control.SessionEnd(), 0)
    assert [call[:4] for call in told.take()] == [("lost", "Trades", f"{A}/1", "shutdown")]
    assert not sources.sessions


def test_silence_ends_and_a_word_begins_again() -> None:
    sources, told = begin(A, B)
    sources.batch(A, 2, 0, 10.0)
    assert sources.silence(30.0, 35.0, 0) == [B]
    assert told.take() == [("lost", "Trades", f"{B}/1", "session_lost", [f"{A}/1"])]
    assert not sources.is_live(f"{B}/1")
    assert sources.connections == 1
    assert not sources.silence(30.0, 35.0, 0)
    sources.batch(B, 2, 0, 36.0)
    assert told.take() == [("covered", "Trades", f"{B}/1")]
    assert sources.is_live(f"{B}/1")


def test_numbers_of_the_newest_ended_sessions_are_kept() -> None:
    sources, _ = begin()
    names = [f"r0-{n:012x}{'f' if n % 2 else '0'}aaaaa" for n in range(2, 30)]
    sources.batches = dict.fromkeys(reversed(names), 5)  # As a Redis hash gives them: in any order.
    for name in names:
        sources.sessions.pop(name, None)
    sources.apply(A, control.SessionEnd(), 0)
    assert sorted(sources.batches) == sorted(names)[-REMEMBERED:]
    assert sources.forgotten == set(names) - set(sources.batches)
    back = names[0]
    sources.batch(back, 6, 0, 0.0)
    assert back not in sources.forgotten


def test_candles_of_several_intervals_are_topics_of_their_own_and_other_names_are_not() -> None:
    sources, _ = begin()
    one, five = (TopicRef("S", "s", "Candles", f"kline_{i}") for i in ("1m", "5m"))
    sources.apply(A, control.Subscribed(1, [one, five]), 0)
    sources.apply(A, control.Unsubscribed(1, [five]), 0)
    assert sources.live(one)
    assert not sources.live(five)
    assert sources.live(TopicRef("S", "s", "Trades", "another@name"))

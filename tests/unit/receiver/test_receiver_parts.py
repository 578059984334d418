"""Small pure parts: pacing, freshness, causes, command filter, socket planning, message pacing."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest

from feedmill.exchanges.base import ChannelName, Feed, Outbound, Subscription, Topic, VenueLimits, Verdict
from feedmill.receiver.causes import explain, host_of, retry_after
from feedmill.receiver.commands import CommandFilter
from feedmill.receiver.freshness import SAMPLED, Freshness
from feedmill.receiver.keeper import EARLIEST, LATEST, renewal_age
from feedmill.receiver.pacing import Pacer, unread
from feedmill.receiver.subscriber import message_bucket
from feedmill.receiver.supervisor import plan_sockets
from feedmill.resources.types import BatchingMode
from feedmill.shared.clock import SECOND
from feedmill.shared.control import Command


def feed_rate(pacer: Pacer, rate: float, seconds: float, start: float = 1000.0) -> float:
    now, rest = start, 0.0
    for _ in range(int(seconds * 200)):
        now += 0.005
        rest = pacer.after_read(int(rate * 0.005), now)
    return rest


def test_latency_never_rests_and_throughput_always_does() -> None:
    assert feed_rate(Pacer(BatchingMode.LATENCY, 0.02), 50_000, 1) == 0.0
    assert Pacer(BatchingMode.THROUGHPUT, 0.02).after_read(1, 5.0) == 0.02
    assert Pacer(BatchingMode.THROUGHPUT, 1.0).after_read(1, 5.0) == 0.03


def test_adaptive_rests_by_the_rate() -> None:
    assert feed_rate(Pacer(BatchingMode.ADAPTIVE, 0.02), 800, 1) == 0.0
    middle = feed_rate(Pacer(BatchingMode.ADAPTIVE, 0.02), 5_400, 2)
    assert 0.008 < middle < 0.012
    busy = Pacer(BatchingMode.ADAPTIVE, 0.02)
    assert feed_rate(busy, 40_000, 2) == 0.02
    # After a quiet stretch the first frame waits for nothing.
    assert busy.after_read(1, 1010.0) == 0.0


def test_unread_bytes_of_a_socket() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert unread(other.fileno()) == 0
        one.send(b"x" * 1000)
        assert unread(other.fileno()) == 1000
    assert unread(-1) == 0


def test_freshness_finds_topics_wherever_they_stand() -> None:
    freshness = Freshness(["btcusdt@trade", "trades.BTC-PERPETUAL.raw", "never"])
    freshness.sample([b'{"stream":"btcusdt@trade","data":{"e":"trade"}}'], 10.0)
    freshness.sample([b'{"method":"subscription","params":{"channel":"trades.BTC-PERPETUAL.raw","data":[]}}'], 11.0)
    freshness.sample([b'{"stream":"unknown@trade"}', b"\xff"], 12.0)
    assert freshness.ages(13.0) == {"btcusdt@trade": 3.0, "trades.BTC-PERPETUAL.raw": 2.0, "never": None}
    assert freshness.unknown == 2


def test_freshness_looks_at_few_frames_and_comes_round_to_all() -> None:
    freshness = Freshness(["busy", "quiet"])
    frames = [b'{"s":"busy"}'] * (SAMPLED * 4)
    frames[7] = b'{"s":"quiet"}'
    for read in range(5):
        freshness.sample(frames, 100.0 + read)
    assert freshness.seen[b"busy"] == 104.0
    assert freshness.seen[b"quiet"] >= 100.0


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (socket.gaierror(-2, "Name or service not known"), "dns"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "tls"),
        (ConnectionRefusedError(111, "refused"), "refused"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed"), "refused"),
        (TimeoutError(), "timeout"),
        (OSError(113, "No route to host"), "network"),
        (KeyError("x"), "internal"),
    ],
)
def test_causes_are_named_without_the_url(error: Exception, cause: str) -> None:
    failure = explain("wss://user:hunter2@venue.example/ws?token=hunter2", error)
    assert failure.cause == cause
    assert failure.host == "venue.example:443"
    assert "hunter2" not in str(failure)


def test_hosts_and_retry_after() -> None:
    assert host_of("ws://a/x") == "a:80"
    assert host_of("https://a:8443") == "a:8443"
    assert host_of("ws://a:99999999/") == "a:80"
    assert retry_after({"Retry-After": "7"}) == 7.0
    assert retry_after({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}) is None
    assert retry_after({}) is None
    assert retry_after(None) is None


def test_commands_are_done_once_and_only_while_fresh() -> None:
    judge = CommandFilter(30.0).judge
    now = 100 * SECOND
    command = Command("a", "book_snapshot", "S", "N", "Book", now - 29 * SECOND)
    assert judge(command, now) == "do"
    assert judge(command, now) == "doubled"
    assert judge(Command("b", "book_snapshot", "S", "N", "Book", now - 31 * SECOND), now) == "stale"
    issued_once_more = Command("a", "book_snapshot", "S", "N", "Book", now, living=["r0-1"])
    assert judge(issued_once_more, now) == "do"
    assert judge(issued_once_more, now) == "doubled"


def test_what_was_asked_of_connections_before_this_process_began_is_no_concern_of_it() -> None:
    judge = CommandFilter(30.0, since_ns=100 * SECOND).judge
    before, now = 99 * SECOND, 101 * SECOND
    assert judge(Command("a", "resubscribe", "S", "N", "Book", before), now) == "stale"
    assert judge(Command("b", "resubscribe", "S", "N", "Book", now), now) == "do"
    assert judge(Command("c", "trades", "S", "N", "Trades", before), now) == "do"


class PlanFeed(Feed):
    limits: ClassVar[VenueLimits] = VenueLimits(1, 1.0, 5.0, 3, 2, 1, 1.0, None, 1.0)
    data_prefixes: ClassVar[tuple[bytes, ...]] = ()

    def topics(self, subscriptions: Sequence[Subscription]) -> list[Topic]:
        sockets = {ChannelName.TRADES: "market"}
        return [Topic(s.native, sockets.get(s.channel, "public"), s) for s in subscriptions]

    def url(self, socket: str) -> str:
        return socket

    def subscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        return []

    def unsubscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        return []

    def classify(self, payload: bytes) -> Verdict:
        raise NotImplementedError


def test_sockets_are_planned_by_name_and_cut_by_the_limit() -> None:
    wanted = [Subscription(f"S{n}", f"s{n}", ChannelName.BOOK) for n in range(7)]
    wanted += [Subscription("T", "t", ChannelName.TRADES)] * 2
    plans = plan_sockets(PlanFeed("x"), wanted)
    assert [(plan.name, plan.socket, [t.name for t in plan.topics]) for plan in plans] == [
        ("public-1", "public", ["s0", "s1", "s2"]),
        ("public-2", "public", ["s3", "s4", "s5"]),
        ("public-3", "public", ["s6"]),
        ("market", "market", ["t"]),
    ]


@pytest.mark.parametrize("limit", [1.0, 3.3, 5.0, 10.0])
def test_client_messages_stay_under_the_venue_limit_in_any_second(limit: float) -> None:
    bucket = message_bucket(limit)
    assert bucket.capacity + bucket.rate <= max(limit, 1.5)


def test_renewals_are_spread_by_link_and_never_later_than_the_venue_allows() -> None:
    seeds = [f"ns.feed.{shard}/r{replica}/stream/1" for shard in range(20) for replica in range(5)]
    day = 86_400.0
    ages = [renewal_age(None, day, seed) or 0.0 for seed in seeds]
    assert ages == [renewal_age(None, day, seed) for seed in seeds]
    assert all(EARLIEST * day <= age <= LATEST * day for age in ages)
    # A hundred links made at once: no tenth of the time sees more than a third of them.
    step = (LATEST - EARLIEST) * day / 10
    counts = Counter(int((age - EARLIEST * day) / step) for age in ages)
    assert max(counts.values()) <= 33
    assert (renewal_age(60.0, day, "a") or day) <= LATEST * 60
    assert (renewal_age(2 * day, day, "a") or 0.0) == renewal_age(None, day, "a")
    assert renewal_age(60.0, None, "a") == renewal_age(60.0, day, "a")
    assert renewal_age(None, None, "a") is None

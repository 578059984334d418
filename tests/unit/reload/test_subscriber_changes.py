"""Topics come and go on one connection: what is asked, what is written, whatever the venue answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from feedmill.exchanges.base import ChannelName, FrameKind, Subscription, Topic, Verdict
from feedmill.exchanges.binance_spot.feed import SpotFeed
from feedmill.receiver.session import Producer
from feedmill.receiver.subscriber import Subscriber, TopicState
from feedmill.shared import control
from feedmill.shared.budget import ByteBudget


class Quiet:
    def __getattr__(self, _: str) -> Any:
        return lambda *args, **more: None


class FastFeed(SpotFeed):
    limits = SpotFeed.limits.__class__(**{
        name: 1000.0 if name == "messages_per_second" else getattr(SpotFeed.limits, name)
        for name in SpotFeed.limits.__dataclass_fields__
    })  # fmt: skip


class Desk:
    """A subscriber of a venue that answers as the test says: ``answers``: yes | no (an error) | silence."""

    def __init__(self, *symbols: str) -> None:
        self.feed = FastFeed("wss://x")
        self.records: list[control.Control] = []
        self.asked: list[tuple[str, list[str]]] = []
        self.answers = "yes"
        self.given_up = ""
        producer = Producer("r", ByteBudget(1 << 20))
        producer.record = lambda record, conn=0: self.records.append(record)  # type: ignore[method-assign]
        # Who answers does so in time, however long a busy machine pauses: what is asked twice is counted here.
        self.subscriber = Subscriber(
            1, self.feed, self.topics(*symbols), producer, self._sent, ack_timeout=60.0,
            give_up=self._give_up, log=Quiet(),
        )  # fmt: skip

    def topics(self, *symbols: str) -> list[Topic]:
        return self.feed.topics([Subscription(each, each, ChannelName.TRADES) for each in symbols])

    def _give_up(self, reason: str) -> None:
        self.given_up = reason

    def _sent(self, payload: bytes) -> None:
        request = json.loads(payload)
        self.asked.append((request["method"], [name.partition("@")[0].upper() for name in request["params"]]))
        kind = {"yes": FrameKind.ACK, "no": FrameKind.ERROR}.get(self.answers)
        if kind is not None:
            verdict = Verdict(kind, request["id"], error="" if kind is FrameKind.ACK else "refused")
            asyncio.get_running_loop().call_soon(self.subscriber.on_answer, verdict)

    def take(self) -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]]]:
        """(asked, written) since the last call."""
        said = []
        for record in self.records:
            assert isinstance(record, control.Subscribing | control.Subscribed | control.Unsubscribed)
            final = "!" if isinstance(record, control.Unsubscribed) and record.final else ""
            said.append((type(record).__name__ + final, [ref.symbol for ref in record.topics]))
        asked, self.asked, self.records = self.asked, [], []
        return asked, said


async def test_only_what_differs_is_asked_for() -> None:
    desk = Desk("A", "B")
    await desk.subscriber.run()
    assert desk.take() == ([("SUBSCRIBE", ["A", "B"])], [("Subscribed", ["A", "B"])])
    desk.subscriber.want(desk.topics("B", "C"))
    assert not desk.subscriber.settled
    await desk.subscriber.follow()
    assert desk.take() == (
        [("UNSUBSCRIBE", ["A"]), ("SUBSCRIBE", ["C"])],
        [("Unsubscribed!", ["A"]), ("Subscribing", ["C"]), ("Subscribed", ["C"])],
    )
    assert set(desk.subscriber.states) == {"b@trade", "c@trade"}
    assert set(desk.subscriber.states.values()) == {TopicState.ACTIVE}
    await desk.subscriber.follow()
    assert desk.take() == ([], [])
    # Back again: it was named before on this connection.
    desk.subscriber.want(desk.topics("A", "B", "C"))
    await desk.subscriber.follow()
    assert desk.take() == ([("SUBSCRIBE", ["A"])], [("Subscribed", ["A"])])


async def test_a_change_undone_before_its_turn_is_not_asked_for() -> None:
    desk = Desk("A")
    first = asyncio.create_task(desk.subscriber.run())
    await asyncio.sleep(0)
    changes = []
    for wanted in (("A", "B"), ("A",), ("A", "C")):
        desk.subscriber.want(desk.topics(*wanted))
        changes.append(asyncio.create_task(desk.subscriber.follow()))
    await asyncio.gather(first, *changes)
    asked, _ = desk.take()
    assert sorted(name for _, names in asked for name in names) == ["A", "C"]
    assert {method for method, _ in asked} == {"SUBSCRIBE"}


async def test_what_is_unwanted_ends_whatever_the_venue_says() -> None:
    for answers in ("no", "silence"):
        desk = Desk("A", "B")
        await desk.subscriber.run()
        desk.take()
        desk.answers = answers
        desk.subscriber._ack_timeout = 0.05
        desk.subscriber.want(desk.topics("B"))
        await desk.subscriber.follow()
        asked, said = desk.take()
        assert ("UNSUBSCRIBE", ["A"]) in asked
        assert said == [("Unsubscribed!", ["A"])]
        assert desk.given_up == ""
        assert set(desk.subscriber.states) == {"b@trade"}


async def test_a_resubscription_is_not_final_and_spares_what_is_gone() -> None:
    desk = Desk("A", "B")
    await desk.subscriber.run()
    desk.take()
    both = desk.topics("A", "B")
    desk.subscriber.want(desk.topics("A"))
    await desk.subscriber.follow()
    desk.take()
    await desk.subscriber.resubscribe(both)
    assert desk.take() == (
        [("UNSUBSCRIBE", ["A"]), ("SUBSCRIBE", ["A"])],
        [("Unsubscribed", ["A"]), ("Subscribed", ["A"])],
    )


async def test_an_end_without_asking_is_written() -> None:
    desk = Desk("A", "B")
    await desk.subscriber.run()
    desk.take()
    desk.subscriber.forget()
    assert desk.take() == ([], [("Unsubscribed!", ["A", "B"])])
    assert desk.subscriber.states == {}

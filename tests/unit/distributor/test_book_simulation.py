"""Books against a simulated venue of each rule set, under drops, losses, old and late answers, overflow and restarts.

Whenever a book is valid it is the venue's at its number; what readers of the stream see is too; every break is one gap
row that ends with a snapshot; a sampled snapshot is the venue's book at the end of its slot.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from feedmill.distributor import books as books_module
from feedmill.shared import control

STEP = 300_000_000
PRICES = [f"{100 + n / 2}" for n in range(12)]


class Market:
    """The truth: every message, and the book after each."""

    def __init__(self, rules: str, random: Any, t0: int) -> None:
        self.rules, self.random, self.at = rules, random, t0
        self.seq = 1000
        self.levels: tuple[dict[str, str], dict[str, str]] = ({}, {})
        self.states: dict[int, tuple[dict[str, str], dict[str, str]]] = {self.seq: ({}, {})}
        self.order = [self.seq]
        self.times = {self.seq: t0}

    def change(self) -> list[Any]:
        random, last = self.random, self.seq
        self.at += random.randint(0, STEP)
        width = random.randint(1, 4)
        self.seq += width if self.rules == "dense" else width + random.randint(0, 5)
        first = {"dense": last + 1, "pu": self.seq - random.randint(0, width - 1), "inband": self.seq}[self.rules]
        prev = -1 if self.rules == "dense" else last
        sides: list[list[tuple[str, str]]] = []
        for side in self.levels:
            changed = [(price, random.choice(["0", "0.00", "1", "2.5"])) for price in random.sample(PRICES, 2)]
            for price, size in changed:
                if size.strip("0."):
                    side[price] = size
                else:
                    side.pop(price, None)
            sides.append(changed)
        self.states[self.seq] = (dict(self.levels[0]), dict(self.levels[1]))
        self.order.append(self.seq)
        self.times[self.seq] = self.at
        return ["b", "BTC-USDT", False, first, self.seq, prev, self.at, *sides]

    def snapshot(self, age: int = 0) -> list[Any]:
        seq = self.order[-1 - min(age, len(self.order) - 1)]
        at = 0 if self.rules == "dense" else self.times[seq]
        return ["b", "BTC-USDT", True, seq, seq, -1, at, *(list(side.items()) for side in self.states[seq])]


class Link:
    """One replica's connection."""

    def __init__(self, kit: Any, number: int) -> None:
        self.feeder = kit.Feeder(f"r{number}-00000000000{number}aaaaaa")
        self.conn = 0
        self.up = False
        self.drops = 0
        self.poisoned = False
        self.held: list[bytes] | None = None


class Game:
    def __init__(self, kit: Any, rules: str, links: int, random: Any) -> None:
        self.kit, self.rules, self.random = kit, rules, random
        self.host = kit.Host(kit.settings_of(rules, image_interval=0.5))
        self.market = Market(rules, random, kit.T0)
        self.links = [Link(kit, n) for n in range(links)]
        self.handled = 0
        self.asked: list[control.Command] = []
        self.topic = kit.topic("Book")

    # moves
    def connect(self, who: int) -> None:
        link = self.links[who % len(self.links)]
        if link.up:
            return
        first, link.conn, link.up = link.conn == 0, link.conn + 1, True
        self.host.feed(link.feeder.open(self.host.now, self.topic, conn=link.conn, first=first))
        self._greet(link)

    def _greet(self, link: Link) -> None:
        if self.rules == "inband":
            self.deliver(link, self.market.snapshot())

    def disconnect(self, who: int) -> None:
        link = self.links[who % len(self.links)]
        if link.up:
            self.let_go(link)
            link.up = False
            self.host.feed(link.feeder.close(self.host.now, conn=link.conn))

    def deliver(self, link: Link, message: list[Any]) -> None:
        if link.drops:
            link.drops -= 1
            return
        if link.poisoned:
            link.poisoned = False
            message = [*message[:-1], [*message[-1], ("x", "1")]]
        if link.held is not None:
            link.held.append(self.kit.frame(message))
        else:
            self.host.feed(link.feeder.frames(self.host.now, self.kit.frame(message), conn=link.conn))

    def emit(self, count: int) -> None:
        for _ in range(count):
            message = self.market.change()
            self.host.now += STEP
            for link in self.links:
                if link.up:
                    self.deliver(link, message)

    def drop(self, who: int) -> None:
        self.links[who % len(self.links)].drops = 1

    def hold(self, who: int) -> None:
        """A connection lags behind."""
        link = self.links[who % len(self.links)]
        link.held = link.held if link.held is not None else []

    def let_go(self, link: Link) -> None:
        held, link.held = link.held, None
        if held:
            self.host.feed(link.feeder.frames(self.host.now, *held, conn=link.conn))

    def release(self, who: int) -> None:
        self.let_go(self.links[who % len(self.links)])

    def double(self, who: int) -> None:
        link = self.links[who % len(self.links)]
        if link.up:
            message = self.market.change()
            for each in self.links:
                if each.up:
                    self.deliver(each, message)
            self.deliver(link, message)

    def commit(self, _: int = 0) -> None:
        self.host.tick(0.0)
        self.host.commit()
        fresh, self.handled = self.host.out.commands[self.handled :], len(self.host.out.commands)
        self.asked += fresh

    def answer(self, age: int) -> None:
        """The receivers carry out the oldest command; its snapshot is that many messages old."""
        if not self.asked:
            return
        command = self.asked.pop(0)
        live = [link for link in self.links if link.up]
        if command.kind == "resubscribe":
            for link in live:
                self.host.feed(
                    link.feeder.control(self.host.now, control.Unsubscribed(link.conn, [self.topic]), conn=link.conn)
                )
                self.host.feed(
                    link.feeder.control(self.host.now, control.Subscribed(link.conn, [self.topic]), conn=link.conn)
                )
                self._greet(link)
            return
        for link in live or self.links[:1]:
            if link.conn:
                body = self.kit.frame(self.market.snapshot(age))
                self.host.feed(link.feeder.answer(self.host.now, body, command=command.id))

    def fail(self, _: int) -> None:
        if self.asked and self.links[0].conn and self.rules != "inband":
            command = self.asked.pop(0)
            record = control.RestFailed(command.id, "BTC-USDT", "no")
            self.host.feed(self.links[0].feeder.control(self.host.now, record, conn=0))

    def forget(self, _: int) -> None:
        self.asked.clear()

    def wait(self, tenths: int) -> None:
        self.host.tick(tenths * 3.0)

    def restart(self, _: int) -> None:
        self.host.restart()

    def shed(self, who: int) -> None:
        link = self.links[who % len(self.links)]
        if link.up:
            record = control.Shed(link.conn, 1, 1, 0, 0)
            self.host.feed(link.feeder.control(self.host.now, record, conn=link.conn))

    MOVES = (
        "connect", "disconnect", "emit", "emit", "emit", "drop", "hold", "release", "double", "commit", "commit",
        "answer", "answer", "fail", "forget", "wait", "restart", "shed", "poison",
    )  # fmt: skip

    def poison(self, who: int) -> None:
        """The next message of a connection has a level that nobody can read."""
        self.links[who % len(self.links)].poisoned = True

    def play(self, moves: list[tuple[str, int]]) -> None:
        self.connect(0)
        self.emit(1)
        self.commit()
        for move, number in moves:
            getattr(self, move)(number)
            self.check_now()
        self.settle()
        self.check_all()

    # what must hold
    @property
    def track(self) -> Any:
        return self.host.engine.books.get("BTC-USDT")

    def check_now(self) -> None:
        track = self.track
        if track is None:
            return
        if track.valid:
            book = track.book
            sides = (dict(book.bids.values()), dict(book.asks.values()))
            assert sides == self.market.states[book.seq]
            assert track.meta.gaps.current is None
        else:
            assert (track.meta.gaps.current is not None) == (track.meta.last_seq >= 0)

    def settle(self) -> None:
        """Everything works again: the book must become valid and stay so."""
        for number, link in enumerate(self.links):
            link.drops, link.poisoned = 0, False
            self.let_go(link)
            self.connect(number)
        for _ in range(12):
            self.wait(5)
            self.commit()
            while self.asked:
                self.answer(0)
                self.commit()
            self.emit(2)
            self.commit()
            self.check_now()
        assert self.track.valid
        assert self.track.book.seq == self.market.seq
        self.commit()

    def check_all(self) -> None:
        out = self.host.out
        self._gaps(out.events.gaps)
        self._deltas(out)
        slots = [snapshot.slot_ns for snapshot in out.events.books]
        assert len(slots) == len(set(slots))
        for snapshot in out.events.books:
            assert snapshot.slot_ns % self.kit.SECOND == 0
            assert snapshot.exchange_ns < snapshot.slot_ns
            at_end = [seq for seq in self.market.order if self.market.times[seq] < snapshot.slot_ns]
            assert snapshot.seq == at_end[-1]
            assert (dict(snapshot.bids), dict(snapshot.asks)) == self.market.states[snapshot.seq]

    def _gaps(self, gaps: list[Any]) -> None:
        last: dict[str, Any] = {}
        for gap in gaps:
            before = last.get(gap.id)
            assert gap.revision == (1 if before is None else before.revision + 1)
            assert gap.state == ("open" if before is None or before.state == "closed" else "closed")
            if gap.state == "closed":
                assert gap.to_seq == max(int(gap.repaired_by.removeprefix("snapshot:")), gap.from_seq - 1)
            last[gap.id] = gap
        assert all(gap.state == "closed" for gap in last.values())

    def _deltas(self, out: Any) -> None:
        """A reader of the stream always has the venue's book, and what it was not told a gap row names."""
        deltas, rows = out.deltas.deltas, out.rows().values()
        reader: tuple[dict[str, str], dict[str, str]] = ({}, {})
        seq = -1
        for delta in deltas:
            if delta.image:
                reader = (dict(delta.bids), dict(delta.asks))
            else:
                assert delta.seq > seq
                for side, levels in zip(reader, (delta.bids, delta.asks), strict=True):
                    for price, size in levels:
                        side[price] = size
                        if not size.strip("0."):
                            del side[price]
            assert delta.seq >= seq
            seq = delta.seq
            assert reader == self.market.states[seq]
        told = {delta.seq for delta in deltas}
        for number in self.market.order:
            if not deltas or number <= deltas[0].seq or number in told:
                continue
            after = next(delta for delta in deltas if delta.seq > number)
            assert after.image
            assert any(gap.from_seq <= number and gap.to_seq <= after.seq for gap in rows), number


@pytest.mark.parametrize("links", [1, 2, 3])
@pytest.mark.parametrize("rules", ["dense", "pu", "inband"])
def test_a_valid_book_is_the_venues_and_every_break_is_told(
    kit: Any, rules: str, links: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books_module, "MAX_BUFFERED", 6)
    for seed in range(150):
        random = Random(seed)
        game = Game(kit, rules, links, random)
        moves = [(random.choice(Game.MOVES), random.randint(0, 6)) for _ in range(60)]
        try:
            game.play(moves)
        except Exception as error:
            error.add_note(f"seed {seed}: {moves}")
            raise

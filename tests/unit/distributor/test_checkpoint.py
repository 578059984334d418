"""A restart is not seen: stopped after any commit and begun again from what was stored, the engine emits the same."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from feedmill.distributor import checkpoint
from feedmill.distributor.checkpoint import BadCheckpoint
from feedmill.shared import control

Step = tuple[str, Any]


class Script:
    """Random input for one host: payloads, passing time, commits. Books are fed so that their snapshots chain."""

    def __init__(self, kit: Any, rules: str, seed: int) -> None:
        self.kit, self.random, self.rules = kit, Random(seed), rules
        self.feeders = [kit.Feeder(f"r{n}-00000000000{n}aaaaaa") for n in range(2)]
        self.conns = [0, 0]
        self.up = [False, False]
        self.now = kit.T0
        self.trade = self.quote = 1
        self.book_seq = 100
        self.minute = kit.T0 // (60 * kit.SECOND)
        self.topics = [kit.topic(name) for name in ("Trades", "Ticker", "Candles")]
        self.steps: list[Step] = []
        self.levels = ([("10", "1")], [("11", "1")])

    def write(self, count: int) -> list[Step]:
        self.open(0)
        self.steps.append(("commit", None))
        for _ in range(count):
            move = self.random.choice(
                ["data", "data", "data", "data", "book", "book", "open", "close", "session", "jump", "again", "time",
                 "idle", "shed", "backfill", "poison", "commit", "commit", "commit"]
            )  # fmt: skip
            getattr(self, move)(self.random.randrange(2))
        self.steps += [("idle", 5 * self.kit.SECOND), ("commit", None)]
        return self.steps

    def feed(self, payload: bytes | None) -> None:
        self.steps.append(("feed", payload))

    def open(self, who: int) -> None:
        if self.up[who]:
            return
        first, self.up[who] = self.conns[who] == 0, True
        self.conns[who] += 1
        topics = [*self.topics, self.kit.topic("Book")] if who == 0 else self.topics
        self.feed(self.feeders[who].open(self.now, *topics, conn=self.conns[who], first=first))
        if who == 0:
            self.snapshot()

    def snapshot(self) -> None:
        message = ["b", self.kit.SYMBOL, True, self.book_seq, self.book_seq, -1, self.now, *self.levels]
        body, feeder = self.kit.frame(message), self.feeders[0]
        if self.rules == "inband":
            self.feed(feeder.frames(self.now, body, conn=self.conns[0]))
        else:
            self.feed(feeder.answer(self.now, body))

    def close(self, who: int) -> None:
        if self.up[who]:
            self.up[who] = False
            self.feed(self.feeders[who].close(self.now, conn=self.conns[who]))

    def session(self, who: int) -> None:
        if self.conns[who]:
            older = self.feeders[who]
            stamp = int(older.session[-18:-6], 16) + 16
            self.feeders[who] = self.kit.Feeder(f"r{who}-{stamp:012x}aaaaaa", started_ns=stamp)
            self.up[who], self.conns[who] = False, 0
            self.open(who)

    def data(self, who: int) -> None:
        random, kit = self.random, self.kit
        if not self.up[who]:
            return
        items: list[bytes] = []
        for _ in range(random.randint(1, 4)):
            self.now += random.randint(0, kit.SECOND // 3)
            self.trade += random.choice([1, 1, 1, 1, 2, 3, -1, 0])
            self.quote += random.choice([1, 2, 5, 0, -2])
            self.minute += random.random() < 0.1
            number = self.quote if self.rules != "inband" else self.quote * 7919 % 1009
            items += [
                kit.trade(self.trade, self.now),
                kit.ticker(number, self.quote * 1_000_000),
                kit.candle(self.minute * 60 * kit.SECOND, str(random.randint(1, 3)), closed=random.random() < 0.1),
            ]
        self.feed(self.feeders[who].frames(self.now, *items, conn=self.conns[who]))

    def book_change(self) -> bytes:
        before, self.book_seq = self.book_seq, self.book_seq + 1
        self.now += self.random.randint(0, self.kit.SECOND)
        level = (str(self.random.randint(1, 9)), str(self.random.randint(0, 2)))
        return self.kit.frame(["b", self.kit.SYMBOL, False, before + 1, self.book_seq, before, self.now, [level], []])

    def book(self, _: int) -> None:
        if self.up[0]:
            self.feed(self.feeders[0].frames(self.now, self.book_change(), conn=self.conns[0]))

    def jump(self, who: int) -> None:
        if self.up[who] and self.random.random() < 0.3:
            self.feed(self.feeders[who].batch(skip=1))
            if who == 0:
                self.snapshot()

    def again(self, who: int) -> None:
        fed = [payload for kind, payload in self.steps if kind == "feed"]
        self.feed(self.random.choice(fed[-5:]))

    def shed(self, who: int) -> None:
        if self.up[who]:
            record = control.Shed(self.conns[who], 1, 1, 0, 0)
            self.feed(self.feeders[who].control(self.now, record, conn=self.conns[who]))
            if who == 0:
                self.snapshot()

    def backfill(self, who: int) -> None:
        if self.conns[who]:
            items = [["t", self.kit.SYMBOL, max(1, self.trade - n), self.now] for n in (3, 2, 1)]
            self.feed(self.feeders[who].answer(self.now, self.kit.frame(*items), kind="trades", command="c"))

    def poison(self, who: int) -> None:
        if self.up[who]:
            self.feed(self.feeders[who].frames(self.now, self.kit.frame(["zero"]), conn=self.conns[who]))

    def time(self, _: int) -> None:
        self.steps.append(("time", self.random.randint(0, 2 * self.kit.SECOND)))

    def idle(self, _: int) -> None:
        self.steps.append(("idle", self.random.randint(0, 3 * self.kit.SECOND)))

    def commit(self, _: int) -> None:
        self.steps.append(("commit", None))


def play(kit: Any, rules: str, steps: list[Step], restart: Any) -> Any:
    """Run the steps; ``restart(n)`` says whether the engine begins anew after commit ``n``."""
    host = kit.Host(kit.settings_of(rules, image_interval=3.0))
    commits = 0
    for kind, value in steps:
        if kind == "feed":
            host.feed(value)
        elif kind == "commit":
            host.commit()
            commits += 1
            if restart(commits):
                host.trim()
                host.restart()
        else:
            host.now += value
            host.tick(0.0, idle=kind == "idle")
    return host


def stored(host: Any) -> dict[bytes, Any]:
    """The checkpoint but for what images bring with them."""
    states = (b"s:", b"t:", b"k:", b"c:")
    found = {name: value for name, value in host.fields.items() if not name.startswith((b"b:", b"pos", b"id"))}
    return {name: msgspec.msgpack.decode(v) if name.startswith(states) else v for name, v in found.items()}


@pytest.mark.parametrize("rules", ["dense", "pu", "inband"])
def test_the_same_events_whenever_it_is_restarted(kit: Any, rules: str) -> None:
    kinds: set[str] = set()
    for seed in range(40):
        steps = Script(kit, rules, 1000 + seed).write(90)
        whole = play(kit, rules, steps, lambda n: False)
        for name in whole.out.events.__struct_fields__[1:]:
            kinds |= {name} if getattr(whole.out.events, name) else set()
        commits = sum(kind == "commit" for kind, _ in steps)
        for at in (0, *range(1, commits, 2)):
            again = play(kit, rules, steps, (lambda n, at=at: n == at) if at else (lambda n: True))
            for name in whole.out.events.__struct_fields__[1:]:
                assert getattr(again.out.events, name) == getattr(whole.out.events, name), (seed, at, name)
            assert again.out.deltas == whole.out.deltas, (seed, at)
            assert stored(again) == stored(whole), (seed, at)
    assert kinds >= {"trades", "tickers", "books", "candles", "gaps", "dead_letters"}


def test_a_kill_between_commits_repeats_and_loses_nothing(kit: Any) -> None:
    """What was not committed is read again: the events stream holds each event once all the same."""
    for seed in range(40):
        random = Random(seed)
        steps = Script(kit, "dense", seed).write(60)
        whole = play(kit, "dense", steps, lambda n: False)
        host = kit.Host(kit.settings_of("dense", image_interval=3.0))
        for kind, value in steps:
            if kind == "feed":
                host.feed(value)
            elif kind == "commit":
                host.commit()
            else:
                host.now += value
                host.tick(0.0, idle=kind == "idle")
            if random.random() < 0.2:
                host.restart()
        for each in (host, whole):
            each.tick(5.0)
            each.commit()
        assert sorted(host.out.trades) == sorted(whole.out.trades), seed
        assert host.out.tickers == whole.out.tickers, seed
        assert host.out.events.candles == whole.out.events.candles, seed
        assert host.out.deltas == whole.out.deltas, seed
        ends = {name: (gap.state, gap.missing, gap.to_seq) for name, gap in host.out.rows().items()}
        for name, gap in whole.out.rows().items():
            if name in ends or gap.missing:
                assert ends[name] == (gap.state, gap.missing, gap.to_seq), (seed, name)


def test_the_chain_of_events_commits_is_dense_and_survives_a_restart(kit: Any) -> None:
    host = play(kit, "dense", Script(kit, "dense", 3).write(80), lambda n: n % 3 == 0)
    numbers = [taken.en for taken in host.takes if taken.en]
    assert numbers == list(range(1, len(numbers) + 1))
    before = [taken.eid_before for taken in host.takes if taken.en]
    assert before == ["", *(f"e{n}" for n in numbers[:-1])]


def test_the_raw_floor_never_passes_what_a_restart_needs(kit: Any) -> None:
    host = play(kit, "dense", Script(kit, "dense", 5).write(80), lambda n: False)
    needed = host.engine.replay_from()
    floors = [taken.floor for taken in host.takes if taken.floor]
    assert floors
    assert all(int(floor.split("-")[0]) <= int(needed.split("-")[0]) for floor in floors)
    assert floors == sorted(floors, key=lambda floor: int(floor.split("-")[0]))


def test_ended_sessions_leave_the_checkpoint(kit: Any) -> None:
    host = kit.Host()
    for number in range(1, 25):
        feeder = kit.Feeder(f"r0-{number:012x}aaaaaa", started_ns=number)
        host.feed(feeder.open(kit.T0, kit.topic("Trades")))
        host.commit()
    assert sum(name.startswith(b"s:") for name in host.fields) == 1
    assert sum(name.startswith(b"n:") for name in host.fields) == 17


def test_an_idle_engine_has_nothing_to_commit(kit: Any) -> None:
    host = kit.Host()
    assert not host.engine.moved
    host.tick(1.0)
    assert not host.engine.moved


@pytest.mark.parametrize(
    "field", [b"t:BTC-USDT", b"k:BTC-USDT", b"c:BTC-USDT/1m", b"b:BTC-USDT", b"s:r0-1", b"n:r0-1", b"en"]
)
def test_a_field_that_cannot_be_read_is_named_and_nothing_is_guessed(field: bytes) -> None:
    with pytest.raises(BadCheckpoint, match=field.decode()):
        checkpoint.load({field: b"\xc1"})


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert checkpoint.load({b"z:whatever": b"\xc1", b"new": b"1", b"pos": b"7-1"}).pos == "7-1"


def test_images_are_made_at_the_allowed_rate_the_oldest_first(kit: Any) -> None:
    """New books at once; then no more bytes a second than the settings allow."""
    levels = [[f"{n}", "1"] for n in range(1, 1000)]
    host = kit.Host(kit.settings_of(image_interval=1.0, image_bytes_per_second=40_000))
    feeder = kit.Feeder()
    symbols = [f"S{n}" for n in range(100)]
    host.feed(feeder.open(kit.T0, *(kit.topic("Book", symbol) for symbol in symbols)))
    book = [["b", symbol, True, 5, 5, -1, 0, levels, levels] for symbol in symbols]
    host.feed(feeder.answer(kit.T0, kit.frame(*book)))
    host.commit()
    assert len(host.images) == 100
    made = []
    for second in range(1, 40):
        host.now += kit.SECOND
        changes = [["b", symbol, False, 5 + second, 5 + second, 4 + second, 1, [], []] for symbol in symbols]
        host.feed(feeder.frames(host.now, kit.frame(*changes)))
        host.commit()
        made.append(host.takes[-1].images)
    size = len(next(iter(host.images.values())))
    assert all(len(images) * size <= 40_000 + size for images in made[-10:])
    order = [symbol for images in made for symbol in images]
    assert set(order) <= set(symbols)
    assert len(order) > 10
    rounds = [order[at : at + 100] for at in range(0, len(order), 100)]
    assert all(len(set(each)) == len(each) for each in rounds)

"""An account's engine between a venue that knows the truth and a store; what reaches it is lost or late at will."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from feedmill.distributor.accounts import state
from feedmill.distributor.accounts.engine import Engine
from feedmill.exchanges.account_base import AccountEvent, AccountMapper, AccountRequest
from feedmill.exchanges.base import MapError
from feedmill.shared import control
from feedmill.shared.account_events import AccountBlock, decode_account
from feedmill.shared.frames import VERSION, RawBatch, Run, RunKind, encode_batch

sys.path.insert(0, str(Path(__file__).parents[1] / "exchanges"))
from test_reconcile import CASES, Store, Venue

NAME = "default/main"
SECOND = 1_000_000_000


class Mapper(AccountMapper):
    """A payload is the number of what it says."""

    said: list[list[AccountEvent]]

    def map(self, payload: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        if payload.startswith(b"of:"):
            native = payload[3:].decode()
            if native not in self.symbols:
                raise MapError("unknown_symbol", native)
            return ()
        if not payload.isdigit():
            raise MapError("unreadable", "no number")
        return [msgspec.structs.replace(event, receive_ns=receive_ns) for event in self.said[int(payload)]]

    def map_rest(self, kind: str, symbol: str, status: int, body: bytes, receive_ns: int) -> Sequence[AccountEvent]:
        return self.map(body, receive_ns)


class Adapter:
    """What the engine uses of a venue's private half."""

    def __init__(self, case: str) -> None:
        self.rest = CASES[case][1]
        self.said: list[list[AccountEvent]] = []

    def mapper(self, symbols: Any) -> Mapper:
        made = Mapper(symbols)
        made.said = self.said
        return made

    def reconcile(self, instruments: Any, known: Any, now_ms: int) -> Any:
        return self.rest(instruments, known, now_ms)


class World:
    def __init__(self, case: str, lag: int = 0) -> None:
        self.instruments, _, timed = CASES[case]
        self.venue = Venue(self.instruments, timed, lag)
        self.adapter = Adapter(case)
        self.raw: list[tuple[str, bytes]] = []
        self.at_ns, self.seconds = 1_700_000_000 * SECOND, 1000.0
        self.sessions = self.n = self.conn = 0
        self.listening = False
        self.flying: list[tuple[str, AccountRequest, bytes | None]] = []
        self.hash: dict[bytes, bytes] = {}
        self.blocks: list[AccountBlock] = []
        self.store = Store()
        self.lives = 0
        self.load()
        self.session()

    # -- the receiver

    def append(self, kind: RunKind, payload: bytes) -> None:
        self.at_ns += 1_000_000
        self.n += 1
        run = Run(kind, self.conn, [self.at_ns], [payload])
        batch = RawBatch(VERSION, f"r-{self.sessions}", self.n, [run])
        self.raw.append((f"{len(self.raw) + 1}-0", encode_batch(batch)))

    def record(self, record: control.Control) -> None:
        self.append(RunKind.CONTROL, control.encode(record))

    def session(self) -> None:
        """A process begins; the one before, if any, was killed."""
        self.sessions += 1
        self.n, self.listening = 0, False
        self.record(control.Session(f"r-{self.sessions}", "r", "1", self.at_ns))

    def connect(self) -> None:
        if not self.listening:
            self.listening = True
            self.conn += 1
            self.record(control.Connected(self.conn, "private"))

    def cut(self, action: Any) -> None:
        if self.listening:
            self.listening = False
            self.act(action)  # It is noticed after something was missed.
            self.record(control.Disconnected(self.conn, "closed"))

    def say(self, events: list[AccountEvent]) -> bytes:
        self.adapter.said.append(events)
        return b"%d" % (len(self.adapter.said) - 1)

    def act(self, action: tuple[int, int, int, bool], *, shed: bool = False) -> None:
        what, which, size, step = action
        symbols = list(self.instruments)
        events = self.venue.act(what, symbols[which % len(symbols)], size, step=step)
        if self.listening and shed:
            self.record(control.Shed(self.conn, 1, 1, self.at_ns, self.at_ns))
        elif self.listening:
            self.append(RunKind.FRAMES, self.say(events))

    def rest(self) -> None:
        """Nothing happens for a while."""
        self.at_ns += 20 * SECOND
        self.venue.ms += 20_000
        self.record(control.Alive())

    # -- the desk

    def serve(self, which: int) -> None:
        if self.flying:
            at = which % len(self.flying)
            command, request, body = self.flying[at]
            if body is None:
                self.flying[at] = command, request, self.say(self.venue.serve(request))

    def answer(self, which: int) -> None:
        if self.flying:
            self.serve(which)
            command, request, body = self.flying.pop(which % len(self.flying))
            assert body is not None
            answer = control.RestAnswer(command, request.kind, request.symbol, "", 200, self.at_ns, body)
            self.append(RunKind.REST, control.encode(answer))
            self.engine.handed(command, self.seconds)

    def fail(self, which: int) -> None:
        if self.flying:
            command, request, _ = self.flying.pop(which % len(self.flying))
            self.record(control.RestFailed(command, request.symbol, "the venue cannot be reached"))

    # -- the distributor

    def load(self) -> None:
        self.lives += 1
        self.engine = Engine(
            NAME, self.adapter, self.instruments, state.load(self.hash), str(self.lives), look_every=1e9,
        )  # type: ignore[arg-type]  # fmt: skip

    def read(self, count: int) -> None:
        for _ in range(count):
            at = int(self.engine.pos.split("-")[0])
            if at == len(self.raw):
                return
            stream_id, payload = self.raw[at]
            self.engine.entry(stream_id, payload, self.at_ns, self.seconds)

    def ask(self) -> None:
        self.at_ns += 1
        self.engine.tick(self.at_ns, self.seconds, idle=False)
        self.flying += [(command, request, None) for command, request in self.engine.asks()]

    def commit(self, *, crash: bool = False) -> None:
        if not self.engine.moved:
            return
        taken = self.engine.take()
        if crash:
            self.load()
            return
        self.hash |= {name.encode(): value for name, value in taken.fields.items()}
        for name in taken.deleted:
            self.hash.pop(name.encode(), None)
        self.hash |= {b"pos": taken.pos.encode(), b"id": b"x"}
        if taken.en:
            self.hash |= {b"en": b"%d" % taken.en, b"eid": b"x"}
            block = decode_account(taken.events)
            self.blocks.append(block)
            assert (taken.en, block.account) == (len(self.blocks), NAME)
            for events in (block.orders, block.fills, block.balances, block.positions):
                self.store.take(events)

    def finish(self) -> None:
        self.connect()
        for _ in range(3000):
            self.read(10_000)
            self.seconds += 4.0
            self.ask()
            while self.flying:
                self.answer(0)
            self.commit()
            if int(self.engine.pos.split("-")[0]) == len(self.raw) and not self.engine.line.owed:
                assert not self.engine.moved
                return
            self.venue.lag = max(0, self.venue.lag - 1)
        raise AssertionError("it does not come to an end")

    def check(self) -> None:
        plain = {"flags": 0, "receive_ns": 0}
        replace = msgspec.structs.replace
        happened = {(f.symbol, f.trade_id, f.order_id): f for _, f in self.venue.fills}
        assert {key: replace(fill, **plain) for key, fill in self.store.fills.items()} == happened
        assert {key: replace(order, **plain) for key, order in self.store.orders.items()} == self.venue.orders
        held = {asset: int(each.total) for asset, each in self.store.balances.items()}
        assert held == {**dict.fromkeys(held, 1000), **self.venue.balances}
        sizes = {key[0]: int(each.size) for key, each in self.store.positions.items()}
        assert {s: size for s, size in sizes.items() if size} == {s: n for s, n in self.venue.positions.items() if n}
        gaps = {gap.id: gap for block in self.blocks for gap in block.gaps}
        assert all(gap.state == "closed" for gap in gaps.values())
        told = {each.gap_id for block in self.blocks for each in block.reconciled if not each.refused}
        assert gaps.keys() <= told
        again = state.load(self.hash)
        assert again.base is None
        assert again.live.known(again.line) == self.engine.live.known(self.engine.line)


def started(case: str = "usdm") -> World:
    world = World(case)
    for at in range(8):
        world.act((at % 4, at, 2, True))
    world.finish()
    world.check()
    return world

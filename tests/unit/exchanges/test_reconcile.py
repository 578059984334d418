"""Any interleaving of stream events, losses of the stream, requests and pages ends with every fill exactly once.

A model of a venue does what an account does (orders, fills in parts, self-trades, cancels); its REST lists fills only
some time after they happened, and serves each request at any moment between sending and answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.exchanges.account_base import AccountEvent, AccountRequest, Mend, Rejection
from feedmill.exchanges.account_rest import Known, NoProgress, Traded
from feedmill.exchanges.binance_spot.account_rest import SpotAccountRest
from feedmill.exchanges.binance_usdm.account_rest import UsdmAccountRest
from feedmill.exchanges.deribit import account_rest as deribit
from feedmill.exchanges.deribit.account_rest import DeribitAccountRest
from feedmill.exchanges.reconcile import CHECKS, MAX_FLYING, Asked, Reconciliation, Stage
from feedmill.shared.account_events import Balance, Fill, OrderUpdate, Position
from feedmill.shared.account_keys import fill_key, merged, order_key, order_rank, position_key

SPOT = {
    "BTC-USDT": Traded("BTCUSDT", ("BTC", "USDT")),
    "ETH-USDT": Traded("ETHUSDT", ("ETH", "USDT")),
    "ETH-BTC": Traded("ETHBTC", ("ETH", "BTC")),
}
USDM = {"BTC-USDT": Traded("BTCUSDT", ("USDT",)), "ETH-USDT": Traded("ETHUSDT", ("USDT",))}
DERIBIT = {"BTC-PERPETUAL": Traded("BTC-PERPETUAL", ("BTC",)), "ETH-PERPETUAL": Traded("ETH-PERPETUAL", ("ETH",))}
START_MS = 1_700_000_000_000


class SmallSpot(SpotAccountRest):
    PAGE = 3


class SmallUsdm(UsdmAccountRest):
    PAGE = 3


class SmallDeribit(DeribitAccountRest):
    PAGE = 4


@dataclass
class Venue:
    """What happened, and what is asked of it."""

    instruments: dict[str, Traded]
    timed: bool
    """Balances and positions carry a time."""
    lag: int = 0
    """Actions until REST lists a fill."""
    ms: int = START_MS
    updated_ms: int = START_MS
    """When anything last happened."""
    actions: int = 0
    orders: dict[tuple[str, str], OrderUpdate] = field(default_factory=dict)
    fills: list[tuple[int, Fill]] = field(default_factory=list)
    balances: dict[str, int] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    ids: int = 100

    def act(self, what: int, symbol: str, size: int, *, step: bool) -> list[AccountEvent]:
        self.actions += 1
        if step or not self.timed:
            self.ms += 1
        self.updated_ms = self.ms
        opened = [key for key, order in self.orders.items() if not order.terminal and key[0] == symbol]
        if what == 0 or not opened:
            return [self._place(symbol, size), *self._locks(symbol)]
        key = opened[size % len(opened)]
        order = self.orders[key]
        if what == 1:
            return [self._change(order, status="cancelled", terminal=True), *self._locks(symbol)]
        left = int(order.size) - int(order.filled)
        if what == 2:
            return self._fill(order, min(size, left), self._id())
        trade = self._id()
        placed = self._place(symbol, left, side=3 - order.side)
        return [placed, *self._fill(placed, left, trade), *self._fill(order, left, trade)]

    def _id(self) -> str:
        self.ids += 1
        return str(self.ids)

    def _place(self, symbol: str, size: int, side: int = 1) -> OrderUpdate:
        at = self.ms * 1_000_000
        order = OrderUpdate(
            symbol, self._id(), "", side, "limit", "gtc", "", None, "5", "", str(size), "0", "", "", "new", False, "",
            at, at, 0,
        )  # fmt: skip
        self.orders[order_key(order)] = order
        return order

    def _change(self, order: OrderUpdate, **fields: Any) -> OrderUpdate:
        changed = msgspec.structs.replace(order, venue_ns=self.ms * 1_000_000, **fields)
        self.orders[order_key(changed)] = changed
        return changed

    def _fill(self, order: OrderUpdate, size: int, trade: str) -> list[AccountEvent]:
        filled = int(order.filled) + size
        done = filled == int(order.size)
        changed = self._change(
            order, filled=str(filled), status="filled" if done else "partially_filled", terminal=done
        )
        fill = Fill(
            order.symbol, trade, order.order_id, "", order.side, "", "5", str(size), "", "", "", None, "",
            self.ms * 1_000_000, 0,
        )  # fmt: skip
        self.fills.append((self.actions, fill))
        assets = self.instruments[order.symbol].assets
        signed = size if order.side == 1 else -size
        for asset, amount in zip(assets, (signed, -5 * signed), strict=False):
            # The fee makes every fill show, also a self-trade.
            self.balances[asset] = self.balances.get(asset, 1000) + 10 * amount - 1
        events: list[AccountEvent] = [fill, changed, *map(self._balance, assets)]
        if self.instruments is not SPOT:
            self.positions[order.symbol] = self.positions.get(order.symbol, 0) + signed
            events.append(self._position(order.symbol))
        return events

    def _locks(self, symbol: str) -> list[AccountEvent]:
        """On Spot what an order locks is told."""
        return [self._balance(asset) for asset in self.instruments[symbol].assets] if self.instruments is SPOT else []

    def _balance(self, asset: str) -> Balance:
        at = self.updated_ms * 1_000_000 if self.timed else 0
        total = self.balances.setdefault(asset, 1000)
        if self.instruments is not SPOT:
            return Balance(asset, str(total), "", "", "", at, 0)
        locked = 0
        for order in self.orders.values():
            base, quote = self.instruments[order.symbol].assets
            if not order.terminal and asset == (quote if order.side == 1 else base):
                locked += (int(order.size) - int(order.filled)) * (5 if order.side == 1 else 1)
        return Balance(asset, str(total), str(total - locked), str(locked), "", at, 0)

    def _position(self, symbol: str) -> Position:
        at = self.ms * 1_000_000 if self.timed else 0
        return Position(symbol, "", str(self.positions.get(symbol, 0)), "", "", "", "", at, 0)

    # -- REST

    def serve(self, request: AccountRequest) -> list[AccountEvent]:
        params, kind = request.params, request.kind
        if kind == "balances":
            return [
                self._balance(asset)
                for asset in sorted({*self.balances, *(a for i in self.instruments.values() for a in i.assets)})
            ]
        if kind == "positions":
            return [self._position(symbol) for symbol, size in self.positions.items() if size]
        if kind == "open_orders":
            symbols = self._asked(params)
            return [order for order in self.orders.values() if not order.terminal and order.symbol in symbols]
        if kind in ("deposits", "withdrawals"):
            return []
        if kind == "order":
            return [self.orders[request.symbol, params["order_id"]]]
        symbols = self._asked(params)
        if kind == "orders":
            return self._list_orders([each for each in self.orders.values() if each.symbol in symbols], params)
        shown = [each for at, each in self.fills if each.symbol in symbols and at <= self.actions - self.lag]
        return self._list_fills(shown, params)

    def _asked(self, params: Any) -> set[str]:
        native = params.get("symbol") or params.get("instrument_name")
        if native:
            return {symbol for symbol, traded in self.instruments.items() if traded.native == native}
        currency = params.get("currency")
        return {symbol for symbol, traded in self.instruments.items() if currency in (None, *traded.assets)}

    def _list_orders(self, rows: list[OrderUpdate], params: Any) -> list[AccountEvent]:
        if "offset" in params:
            rows = sorted((each for each in rows if each.terminal), key=lambda each: -each.venue_ns)
            at = int(params["offset"])
            return list(rows[at : at + int(params["count"])])
        if "orderId" in params:
            rows = [each for each in rows if int(each.order_id) >= int(params["orderId"])]
        else:
            rows = [each for each in rows if each.created_ns >= int(params["startTime"]) * 1_000_000]
        return list(sorted(rows, key=lambda each: int(each.order_id))[: int(params["limit"])])

    def _list_fills(self, rows: list[Fill], params: Any) -> list[AccountEvent]:
        if "start_timestamp" in params:
            rows = [each for each in rows if each.exchange_ns >= int(params["start_timestamp"]) * 1_000_000]
            return list(rows[: int(params["count"])])
        if "orderId" in params:
            return [each for each in rows if each.order_id == params["orderId"]]
        rows = [each for each in rows if int(each.trade_id) >= int(params["fromId"])]
        return list(sorted(rows, key=lambda each: int(each.trade_id))[: int(params["limit"])])


@dataclass
class Store:
    """What a processor keeps: fills merged by key, orders by rank, balances and positions as last emitted."""

    fills: dict[Any, Fill] = field(default_factory=dict)
    orders: dict[Any, OrderUpdate] = field(default_factory=dict)
    balances: dict[str, Balance] = field(default_factory=dict)
    positions: dict[Any, Position] = field(default_factory=dict)

    def take(self, events: Sequence[AccountEvent]) -> None:
        for event in events:
            if isinstance(event, Fill):
                key = fill_key(event)
                self.fills[key] = merged(self.fills[key], event) if key in self.fills else event
            elif isinstance(event, OrderUpdate):
                known = self.orders.get(order_key(event))
                if known is None or order_rank(event) >= order_rank(known):
                    self.orders[order_key(event)] = event
            elif isinstance(event, Balance):
                known_ns = self.balances[event.asset].venue_ns if event.asset in self.balances else 0
                if event.venue_ns >= known_ns:
                    self.balances[event.asset] = event
            elif isinstance(event, Position):
                key = position_key(event)
                if event.venue_ns >= (self.positions[key].venue_ns if key in self.positions else 0):
                    self.positions[key] = event

    def known(self, since_ms: int) -> Known:
        opened = {key: {} for key, order in self.orders.items() if not order.terminal}
        last_fill: dict[str, str] = {}
        for fill in self.fills.values():
            if (fill.symbol, fill.order_id) in opened:
                opened[fill.symbol, fill.order_id][fill.trade_id] = fill.size
            last_fill[fill.symbol] = max(last_fill.get(fill.symbol, "0"), fill.trade_id, key=int)
        last_order: dict[str, str] = {}
        for symbol, ident in self.orders:
            last_order[symbol] = max(last_order.get(symbol, "0"), ident, key=int)
        return Known(
            opened, last_order, last_fill, {asset: held.total for asset, held in self.balances.items()},
            {asset: (held.free, held.locked) for asset, held in self.balances.items() if held.free},
            {key: held for key, held in self.positions.items() if held.size != "0"}, since_ms,
        )  # fmt: skip


CASES = {
    "spot": (SPOT, SmallSpot, True),
    "usdm": (USDM, SmallUsdm, True),
    "deribit": (DERIBIT, SmallDeribit, False),
}
actions = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 5), st.booleans())
steps = st.lists(
    st.tuples(st.sampled_from(["act", "ask", "ask", "serve", "answer", "answer", "lose"]), actions), max_size=60
)


class World:
    def __init__(self, case: str, lag: int) -> None:
        self.instruments, self.rest, timed = CASES[case]
        self.venue = Venue(self.instruments, timed, lag)
        self.store = Store()
        self.listening = True
        self.run: Reconciliation | None = None
        self.flying: list[tuple[Asked, list[AccountEvent] | None]] = []
        self.requests = 0

    def act(self, action: tuple[int, int, int, bool]) -> None:
        what, which, size, step = action
        symbols = list(self.instruments)
        events = self.venue.act(what, symbols[which % len(symbols)], size, step=step)
        if self.listening:
            self.store.take(events)
            for event in events if self.run else ():
                self.run.heard(event)

    def begin(self, known: Known, *, sweep: bool = True) -> Reconciliation:
        self.listening = True
        self.flying = []
        self.run = Reconciliation(self.rest(self.instruments, known, self.venue.ms), "gap-1", 1, sweep=sweep)
        return self.run

    def ask(self, budget: int = 1000) -> bool:
        assert self.run is not None
        asked = self.run.next(budget)
        if asked is None:
            return False
        assert asked.request.weight <= budget
        assert len(self.flying) < MAX_FLYING
        self.requests += 1
        self.flying.append((asked, None))
        return True

    def serve(self, which: int) -> None:
        if self.flying:
            at = which % len(self.flying)
            asked, answer = self.flying[at]
            if answer is None:
                self.flying[at] = asked, self.venue.serve(asked.request)

    def answer(self, which: int) -> None:
        assert self.run is not None
        if self.flying:
            self.serve(which)
            asked, answer = self.flying.pop(which % len(self.flying))
            assert answer is not None
            self.store.take(self.run.answered(asked, answer))

    def finish(self) -> None:
        assert self.run is not None
        for _ in range(5000):
            while self.flying:
                self.answer(0)
            if not self.ask():
                if self.run.stage is Stage.DONE:
                    return
                assert self.run.pause > 0, "it gives no request only to rest"
                self.venue.lag = max(0, self.venue.lag - 1)
        raise AssertionError("it does not come to an end")

    def check(self) -> None:
        happened = {fill_key(fill): fill for _, fill in self.venue.fills}
        assert self.store.fills == happened
        assert self.store.orders == self.venue.orders
        assert {asset: int(held.total) for asset, held in self.store.balances.items()} == self.venue.balances
        assert {key[0]: int(held.size) for key, held in self.store.positions.items()} == {
            symbol: size for symbol, size in self.venue.positions.items() if (symbol, "") in self.store.positions
        }
        assert all(
            size == 0 for symbol, size in self.venue.positions.items() if (symbol, "") not in self.store.positions
        )


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=150)
@given(data=st.data())
def test_every_fill_once_whatever_the_order_of_things(case: str, data: st.DataObject) -> None:
    world = World(case, data.draw(st.integers(0, 3)))
    for action in data.draw(st.lists(actions, max_size=15)):
        world.act(action)
    known = world.store.known(world.venue.ms)
    world.listening = False
    for action in data.draw(st.lists(actions, max_size=30)):
        world.act(action)
    world.begin(known)
    for what, action in data.draw(steps):
        if what == "act":
            world.act(action)
        elif what == "lose":
            world.run, world.listening = None, False
            world.act(action)
            world.begin(known)
        elif what == "ask":
            world.ask(budget=[0, 5, 40, 1000][action[0]])
        elif what == "serve":
            world.serve(action[1])
        else:
            world.answer(action[1])
    world.finish()
    world.check()
    assert world.run is not None
    assert world.run.reconciled(2).refused == []


@pytest.mark.parametrize("case", CASES)
def test_the_gap_closes_before_the_sweep(case: str) -> None:
    world = World(case, 0)
    for at in range(12):
        world.act((at % 4, 0, 1 + at % 3, True))
    known = world.store.known(world.venue.ms)
    world.listening = False
    for at in range(20):
        world.act((at % 4, 0, 1 + at % 3, True))
    run = world.begin(known)
    while not run.closed:
        if not world.ask():
            world.answer(0)
    world.check()
    marker = run.reconciled(7)
    assert (marker.gap_id, marker.started_ns, marker.finished_ns, marker.refused) == ("gap-1", 1, 7, [])
    assert marker.requests == world.requests
    assert marker.weight > 0
    world.finish()
    assert set(run.reconciled(8).instruments) == set(world.run._rest.scopes())


HELD = [Balance("BTC", "1.0", "0.60", "0.4", "", 1, 0), Balance("USDT", "5", "5", "0", "", 1, 0)]
OPEN = OrderUpdate(
    "BTC-USDT", "7", "", 2, "limit", "gtc", "", None, "5", "", "0.4", "0", "", "", "new", False, "", 1, 1, 0
)


@pytest.mark.parametrize(
    ("opened", "told", "listed", "weight", "instruments"),
    [
        ({}, HELD, [], 20, []),
        ({("BTC-USDT", "7"): {}}, HELD, [OPEN], 26, []),
        ({("BTC-USDT", "7"): {}}, HELD, [], 66, ["BTC-USDT"]),
        ({}, [HELD[0], Balance("USDT", "5", "4", "1", "", 1, 0)], [OPEN], 100, []),
        (
            {},
            [Balance("BTC", "2", "1.6", "0.4", "", 1, 0), Balance("USDT", "4", "4", "0", "", 1, 0)],
            [],
            140,
            ["BTC-USDT"],
        ),
        ({}, [HELD[0]], [], 100, []),
    ],
    ids=["nothing", "one open", "it vanished", "a new order", "a fill", "an asset is gone"],
)
def test_the_weights_of_a_small_spot_account(
    opened: Any, told: list[Balance], listed: list[OrderUpdate], weight: int, instruments: list[str]
) -> None:
    """Stated, since a thousand accounts share one budget."""
    known = Known(
        open_orders=opened, last_order={"BTC-USDT": "7"}, balances={"BTC": "1", "USDT": "5", "ETH": "0"},
        held={"BTC": ("0.6", "0.4"), "USDT": ("5.00", "0"), "ETH": ("0", "0")}, since_ms=1,
    )  # fmt: skip
    answers: dict[str, list[AccountEvent]] = {"balances": [*told], "open_orders": [*listed]}
    ended = msgspec.structs.replace(OPEN, status="cancelled", terminal=True, venue_ns=2)
    answers["orders"] = [ended]
    run = Reconciliation(SpotAccountRest(SPOT, known, START_MS), "g", 1, sweep=False)
    while (asked := run.next(1000)) is not None:
        run.answered(asked, answers.get(asked.request.kind, []))
    assert run.stage is Stage.DONE
    marker = run.reconciled(1)
    assert (marker.weight, marker.instruments, marker.refused) == (weight, instruments, [])


def test_an_untouched_spot_account_costs_its_balances() -> None:
    held = {"BTC": ("1", "0")}
    for told_ms, updated_ms, total, weight in ((7, 7, "1", 20), (7, 8, "1", 26), (0, 7, "1", 26), (7, 7, "2", 100)):
        known = Known(open_orders={("BTC-USDT", "7"): {}}, last_order={"BTC-USDT": "7"}, balances={"BTC": "1"},
                      held=held, told_ms=told_ms)  # fmt: skip
        answers: dict[str, list[AccountEvent]] = {
            "balances": [Balance("BTC", total, total, "0", "", updated_ms * 1_000_000, 0)],
            "open_orders": [OPEN],
        }
        for sweep, spare in ((True, True), (False, False)):
            run = Reconciliation(SpotAccountRest(SPOT, known, START_MS), "g", 1, sweep=sweep, spare=spare)
            while (asked := run.next(1000, sweep=False)) is not None:
                run.answered(asked, answers.get(asked.request.kind, []))
            assert run.reconciled(1).weight >= weight
            assert (run.reconciled(1).weight == 20) == (weight == 20)
            assert run.closed
            assert (run.stage is Stage.DONE) == (weight == 20 or not sweep)


def test_fills_that_never_add_up_are_told_after_so_many_checks() -> None:
    world = World("spot", 0)
    known = world.store.known(world.venue.ms)
    world.listening = False
    world.act((0, 0, 4, True))
    world.act((2, 0, 3, True))
    world.venue.lag = 10**6
    run = world.begin(known, sweep=False)
    pauses = []
    while run.stage is not Stage.DONE:
        while world.flying:
            world.answer(0)
        if not world.ask() and run.pause:
            pauses.append(run.pause)
    order = next(iter(world.venue.orders))[1]
    assert run.reconciled(1).refused == [f"fills BTC-USDT {order}: 0 of 3 found"]
    assert len(pauses) == CHECKS
    assert pauses == sorted(pauses)


def test_a_refused_request_is_told_and_a_mendable_one_made_again() -> None:
    run = Reconciliation(SpotAccountRest(SPOT, Known(), START_MS), "g", 1, sweep=False)
    first = run.next(1000)
    assert first is not None
    run.rejected(first, Rejection(Mend.RETRY, -1003, "too many requests", 3.0))
    again = run.next(1000)
    assert again is not None
    assert again.request == first.request
    run.rejected(again, Rejection(Mend.REFUSED, -1121, "Invalid symbol."))
    while (asked := run.next(1000)) is not None:
        run.answered(asked, [])
    assert run.reconciled(1).refused == ["balances: -1121: Invalid symbol."]


def test_a_page_that_goes_no_further_ends_its_list() -> None:
    rest = SmallSpot(SPOT, Known(last_fill={"BTC-USDT": "7"}), START_MS)
    request = rest.of_scope("BTC-USDT", frozenset())[1]
    row = Fill("BTC-USDT", "7", "1", "", 1, "", "5", "1", "", "", "", None, "", 1, 0)
    run = Reconciliation(rest, "g", 1, sweep=False)
    run._queue.appendleft((request, 1))
    asked = run.next(1000)
    assert asked is not None
    run.answered(asked, [row] * 3)
    assert run.reconciled(1).refused == ["fills BTC-USDT: a full page of one id or time"]


def test_deribit_asks_for_old_lists_only_after_a_long_gap() -> None:
    def kinds(gap_ms: int) -> list[tuple[str, str]]:
        rest = DeribitAccountRest(DERIBIT, Known(since_ms=START_MS - gap_ms), START_MS)
        return [(each.kind, each.params.get("historical", "")) for each in rest.of_scope("BTC", frozenset())]

    recent = [("orders", "false"), ("fills", "false"), ("deposits", ""), ("withdrawals", "")]
    assert kinds(60_000) == recent
    assert kinds(3_600_000) == [("orders", "true"), *recent]
    assert kinds(deribit.RECENT_FILLS_MS) == [("orders", "true"), ("fills", "true"), *recent]


def test_an_order_that_vanished_from_deribits_lists_is_asked_for_singly() -> None:
    world = World("deribit", 0)
    world.act((0, 0, 4, True))
    key = next(iter(world.venue.orders))
    known = world.store.known(world.venue.ms)
    world.listening = False
    world.act((1, 0, 1, True))
    run = world.begin(known, sweep=False)
    hidden = msgspec.structs.replace(world.venue.orders[key], venue_ns=1)
    serve, asked_for = world.venue.serve, []

    def without_it(request: AccountRequest) -> list[AccountEvent]:
        asked_for.append(request.kind)
        return [] if request.kind == "orders" else serve(request)

    world.venue.serve = without_it
    world.finish()
    assert asked_for[-1] == "order"
    assert world.store.orders[key].status == hidden.status == "cancelled"
    assert run.reconciled(1).refused == []


def test_sizes_are_summed_exactly() -> None:
    """0.1 three times is 0.3: no float, or it would be asked for again."""
    known = Known(open_orders={("BTC-USDT", "5"): {"1": "0.1", "2": "0.1"}}, last_order={"BTC-USDT": "5"})
    run = Reconciliation(SpotAccountRest(SPOT, known, START_MS), "g", 1, sweep=False)
    run.heard(Fill("BTC-USDT", "3", "5", "", 1, "", "5", "0.1", "", "", "", None, "", 1, 0))
    order = OrderUpdate(
        "BTC-USDT", "5", "", 1, "limit", "gtc", "", None, "5", "", "0.3", "0.3", "", "", "filled", True, "", 2, 1, 0
    )
    run.heard(order)
    weight = 0
    while (asked := run.next(1000)) is not None:
        weight += asked.request.weight
        run.answered(asked, [order] if asked.request.kind == "orders" else [])
    assert run.stage is Stage.DONE
    assert weight == 140, "no request for the order's fills"
    assert Decimal("0.1") * 3 == Decimal("0.3")


@pytest.mark.parametrize("case", CASES)
def test_an_answer_older_than_what_the_stream_told_meanwhile_changes_nothing(case: str) -> None:
    """Served before, arrived after: of one ms, or (Deribit) without any time, the two cannot be told apart."""
    world = World(case, 0)
    for action in ((0, 0, 5, False), (2, 0, 1, False)):
        world.act(action)
    world.begin(world.store.known(world.venue.ms), sweep=False)
    while world.ask():
        pass
    for at in range(len(world.flying)):
        world.serve(at)
    world.act((2, 0, 1, False))
    while world.flying:
        world.answer(0)
    world.check()


@pytest.mark.parametrize("case", ["usdm", "deribit"])
def test_a_position_that_is_listed_no_more_is_flat(case: str) -> None:
    world = World(case, 0)
    world.act((0, 0, 5, True))
    world.act((2, 0, 2, True))
    held = dict(world.store.positions)
    known = world.store.known(world.venue.ms)
    assert known.positions == held
    world.listening = False
    world.venue.positions.clear()
    world.begin(known, sweep=False)
    world.finish()
    flat = next(iter(world.store.positions.values()))
    before = next(iter(held.values()))
    assert (flat.size, flat.entry_price, flat.flags) == ("0", "", 2)
    assert flat.venue_ns == (before.venue_ns + 1 if case == "usdm" else 0), "a later one of the stream comes after it"


@pytest.mark.parametrize("self_trade_first", [False, True])
def test_a_page_that_ends_within_a_self_trade_goes_on_with_its_other_fill(self_trade_first: bool) -> None:
    rest = SmallSpot(SPOT, Known(), START_MS)
    ids = [7, 7, 8, 9, 9, 10] if self_trade_first else [7, 8, 9, 9, 10, 10]
    fills = [
        Fill("BTC-USDT", str(ident), str(at), "", 1, "", "5", "1", "", "", "", None, "", 1, 0)
        for at, ident in enumerate(ids)
    ]
    request, got = rest.of_scope("BTC-USDT", frozenset())[1], []
    pages = 0
    while request is not None:
        page = [each for each in fills if int(each.trade_id) >= int(request.params["fromId"])][:3]
        got += page
        request = rest.following(request, page)
        pages += 1
    assert set(map(fill_key, got)) == set(map(fill_key, fills))
    assert pages <= 4


def test_a_page_that_says_there_is_more_goes_on_though_it_is_not_full() -> None:
    rest = DeribitAccountRest(DERIBIT, Known(since_ms=START_MS), START_MS)
    request = rest.of_scope("BTC", frozenset())[1]
    at = START_MS * 1_000_000
    row = Fill("BTC-PERPETUAL", "7", "1", "", 1, "", "5", "1", "", "", "", None, "", at, 0)
    assert rest.following(request, [row]) is None
    following = rest.following(request, [row], more=True)
    assert following is not None
    assert following.params["start_timestamp"] == str(START_MS)
    with pytest.raises(NoProgress):
        rest.following(following, [row], more=True)

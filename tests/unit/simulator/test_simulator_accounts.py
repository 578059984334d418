"""The order engine of the simulated accounts: fills sum to orders, balances and positions follow from fills."""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.simulator.accounts.engine import OrderEngine, make_accounts
from feedmill.simulator.accounts.keys import KeyRing
from feedmill.simulator.accounts.listen_keys import ListenKeys
from feedmill.simulator.accounts.model import ZERO, Account, Update
from feedmill.simulator.accounts.positions import Position, apply_fill
from feedmill.simulator.accounts.rules import rules_of
from feedmill.simulator.accounts.signing import hmac_ok
from feedmill.simulator.accounts.texts import number, plain
from feedmill.simulator.catalog import listings
from feedmill.simulator.config import VENUES
from feedmill.simulator.deribit_auth import Tokens
from feedmill.simulator.deribit_rpc import RpcError

D = Decimal


class Run:
    """An engine with what it told; ``start`` are the balances before."""

    def __init__(self, venue: str, seed: int, steps: int, accounts: int = 3) -> None:
        listed = listings(venue)
        self.rules = rules_of(venue, lambda native: listed[native].price)
        self.accounts = make_accounts(venue, accounts, seed, self.rules, 100_000)
        self.start = {each.name: deepcopy(each.balances) for each in self.accounts}
        self.told: list[Update] = []
        self.states: list[tuple[Any, ...]] = []
        engine = OrderEngine(
            self.accounts, listed, self.rules, lambda native: listed[native].price, self._tell, seed=seed, ids=100
        )
        for at in range(steps):
            engine.step(1_000 + at)

    def _tell(self, update: Update) -> None:
        self.told.append(update)
        order, fill = update.order, update.fill
        self.states.append(
            (
                update.account.name,
                update.execution,
                update.time_ms,
                None if order is None else (order.listing.native, order.id, order.status, order.filled),
                None
                if fill is None
                else (fill.trade_id, fill.order_id, fill.price, fill.size, fill.fee, fill.fee_asset),
                tuple((asset, update.account.balances[asset].total) for asset in update.assets),
            )
        )


def test_no_two_equal_transfers_in_a_millisecond() -> None:
    venue = "binance/Spot"
    listed = listings(venue)
    rules = rules_of(venue, lambda native: listed[native].price)
    told: list[Update] = []
    (account,) = make_accounts(venue, 1, 1, rules, 1_000)
    engine = OrderEngine([account], listed, rules, lambda native: listed[native].price, told.append, seed=1, ids=100)
    for _ in range(5_000):
        engine.step(1_000)
    moved = [(each.transfer.asset, each.transfer.amount) for each in told if each.transfer is not None]
    assert len(moved) > 100
    assert len(set(moved)) == len(moved)
    assert all(amount == round(amount, 8) != 0 for _, amount in moved)
    assert any(amount < 0 for _, amount in moved)
    assert all(each.free >= 0 for each in account.balances.values())


runs = st.builds(Run, st.sampled_from(VENUES), st.integers(0, 10_000), st.integers(50, 400))


@settings(max_examples=30, deadline=None)
@given(run=runs)
def test_fills_sum_to_their_orders(run: Run) -> None:
    for account in run.accounts:
        size: dict[tuple[str, int], Decimal] = defaultdict(lambda: ZERO)
        quote: dict[tuple[str, int], Decimal] = defaultdict(lambda: ZERO)
        for fill in account.fills:
            assert fill.size > 0
            size[fill.listing.native, fill.order_id] += fill.size
            quote[fill.listing.native, fill.order_id] += fill.quote
        for order in account.orders:
            key = order.listing.native, order.id
            assert order.filled == size[key] <= order.size
            assert order.quote == quote[key]
            assert order.size % order.listing.lot == 0
            assert (order.status == "FILLED") == (order.filled == order.size)
            assert (order.status in ("NEW", "PARTIALLY_FILLED")) == (key in account.open)
        assert len({(each.listing.native, each.id) for each in account.orders}) == len(account.orders)


@settings(max_examples=30, deadline=None)
@given(run=runs)
def test_balances_follow_from_fills_and_transfers(run: Run) -> None:
    for account in run.accounts:
        total: dict[str, Decimal] = defaultdict(lambda: ZERO)
        for asset, balance in run.start[account.name].items():
            total[asset] = balance.total
        for fill in account.fills:
            total[fill.fee_asset] -= fill.fee
            sign = 1 if fill.side == "BUY" else -1
            if account.positions:
                total[fill.listing.settle] += fill.pnl
            else:
                total[fill.listing.base] += sign * fill.size
                total[fill.listing.quote] -= sign * fill.quote
        for moved in account.transfers:
            total[moved.asset] += moved.amount
        assert {asset: balance.total for asset, balance in account.balances.items()} == dict(total)
        assert all(balance.free >= 0 and balance.locked >= 0 for balance in account.balances.values())
        assert _locked(account) == {asset: held.locked for asset, held in account.balances.items() if held.locked}


def _locked(account: Account) -> dict[str, Decimal]:
    """What the open orders of a Spot account hold."""
    held: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for order in account.open.values():
        if order.listing.type == "Spot":
            asset, amount = (
                (order.listing.quote, order.left * order.price) if order.buy else (order.listing.base, order.left)
            )
            held[asset] += amount
    return dict(held)


@settings(max_examples=20, deadline=None)
@given(run=runs)
def test_positions_follow_from_fills(run: Run) -> None:
    for account in run.accounts:
        for native, position in account.positions.items():
            mine = [fill for fill in account.fills if fill.listing.native == native]
            assert position.size == sum(fill.size if fill.side == "BUY" else -fill.size for fill in mine)
            assert position.realised == sum(fill.pnl for fill in mine)
            assert bool(position.size) == bool(position.entry)


@pytest.mark.parametrize("venue", VENUES)
def test_every_kind_of_thing_happens_and_a_seed_repeats_it(venue: str) -> None:
    run = Run(venue, 7, 3000)
    assert run.states == Run(venue, 7, 3000).states
    assert run.states != Run(venue, 8, 3000).states
    fills = [update.fill for update in run.told if update.fill is not None]
    by_trade: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for fill in fills:
        by_trade[fill.listing.native, fill.trade_id].append(fill)
    own = [pair for pair in by_trade.values() if len(pair) == 2]
    assert own, "self-trades"
    for one, other in own:
        assert one.order_id != other.order_id
        assert {one.side, other.side} == {"BUY", "SELL"}
        assert {one.maker, other.maker} == {True, False}
    assert max(map(len, by_trade.values())) == 2
    assert {update.execution for update in run.told} >= {"NEW", "TRADE", "CANCELED", "TRANSFER", run.rules.expired}
    assert any(update.order and update.order.type == "MARKET" for update in run.told)
    assert any(fill.order_status == "PARTIALLY_FILLED" for fill in fills)
    if venue.startswith("binance"):
        fees = {fill.fee_asset for fill in fills}
        assert "BNB" in fees
        assert len(fees) > 1


@settings(max_examples=200)
@given(
    moves=st.lists(st.tuples(st.integers(-50, 50).filter(bool), st.integers(1000, 2000)), min_size=1, max_size=20),
    inverse=st.booleans(),
)
def test_a_closed_position_realised_what_its_cash_flows_say(moves: list[tuple[int, int]], inverse: bool) -> None:
    position = Position("X", "X")
    flow = ZERO
    left = -sum(size for size, _ in moves)
    for size, price in [*moves, *([(left, 1500)] if left else [])]:
        apply_fill(position, D(size), D(price), inverse=inverse)
        flow += D(size) / price if inverse else D(-size) * price
    assert position.size == 0
    # The entry is kept to eight decimals, so each step may be off by that, times the size.
    assert abs(position.realised - flow) <= D("0.0001")


def test_numbers_as_text() -> None:
    assert [plain(D(text)) for text in ("0", "1.500", "100", "1E+2", "-0.10", "0E-8")] == [
        "0",
        "1.5",
        "100",
        "100",
        "-0.1",
        "0",
    ]
    assert [number(D(text)) for text in ("20", "1.50", "0")] == ["20.0", "1.5", "0.0"]


def test_the_venues_own_signature_example() -> None:
    secret = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
    payload = (
        "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
    )
    signature = "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"
    assert hmac_ok(secret, payload, signature)
    assert hmac_ok(secret, payload, signature.upper())
    assert not hmac_ok(secret, payload + "0", signature)
    assert not hmac_ok(secret, payload, "é")


def test_keys_repeat_by_seed_rotate_and_show_no_secret() -> None:
    accounts = Run("binance/Spot", 1, 0).accounts
    ring = KeyRing(accounts, 5, "binance/Spot", 1000)
    assert ring.by_id.keys() == KeyRing(accounts, 5, "binance/Spot", 1000).by_id.keys()
    assert not ring.by_id.keys() & KeyRing(accounts, 6, "binance/Spot", 1000).by_id.keys()
    name = accounts[0].name
    old = ring.of(name)
    new = ring.rotate(name, 2000, 5000)
    assert {key.kind for key in new} == {"hmac", "ed25519"}
    assert all(key.allowed("::1", 4999) and not key.allowed("::1", 5000) for key in old)
    assert all(key.allowed("::1", 5000) for key in new)
    assert len(ring.written(4999)) == 8
    assert len(ring.written(5000)) == 6
    for key in ring.by_id.values():
        assert not key.secret or key.secret not in repr(key)


def test_listen_keys_end_and_are_renewed() -> None:
    accounts = Run("binance/UsdM", 1, 0).accounts
    key = KeyRing(accounts, 5, "binance/UsdM", 0).of(accounts[0].name)[0]
    keys = ListenKeys(1000)
    first = keys.make(key, 0)
    assert keys.make(key, 900) == first
    assert keys.ended(1000) == []
    assert keys.renew(key.account, 1800) == first
    assert [each.text for each in keys.ended(2800)] == [first]
    assert keys.renew(key.account, 2800) is None
    assert keys.find(first) is None
    assert keys.make(key, 2800) != first


def test_tokens_of_a_key_are_sixteen_and_scopes_are_no_wider_than_the_key() -> None:
    accounts = Run("deribit/Derivatives", 1, 0).accounts
    ring = KeyRing(accounts, 5, "deribit/Derivatives", 0)
    key = ring.of(accounts[0].name)[0]
    tokens = Tokens({}, ring.by_id, 900)

    def grant(scope: str = "", kind: str = "client_credentials", **more: Any) -> Any:
        asked = {"grant_type": kind, "client_id": key.id, "client_secret": key.secret, "scope": scope} | more
        return tokens.grant(asked, 1000, "::1", 1)

    narrow = grant("session:a trade:read_write wallet:none expires:60")
    assert narrow.rights == {"account": "none", "trade": "read", "wallet": "none"}
    assert narrow.scope == "trade:read session:a mainaccount"
    assert narrow.answer()["expires_in"] == 60
    assert narrow.may("trade:read")
    assert not narrow.may("account:read")
    key.withdraw = True
    assert "wallet:read_write" in grant().scope
    tokens.closed(1)
    made = [grant("session:b") for _ in range(16)]
    assert tokens.find(narrow.access, 1000) is None, "the oldest went for the seventeenth"
    assert all(tokens.find(each.access, 1000) is each for each in made)
    renewed = grant(kind="refresh_token", refresh_token=made[0].refresh)
    assert (renewed.account, renewed.session) == (key.account, "b")
    assert tokens.find(made[0].access, 1000) is None
    with pytest.raises(RpcError):
        grant(kind="refresh_token", refresh_token=made[1].access)
    key.ips = ("10.0.0.1",)
    with pytest.raises(RpcError) as refused:
        grant()
    assert refused.value.code == 13004


def test_the_signature_example_of_deribit() -> None:
    text = "1576074319000\n1iqt2wls\n"
    digest = hmac.new(b"AMANDASECRECT", text.encode(), hashlib.sha256).hexdigest()
    params = {"grant_type": "client_signature", "client_id": "AMANDA", "timestamp": 1576074319000, "nonce": "1iqt2wls"}
    tokens = Tokens({"AMANDA": "AMANDASECRECT"}, {}, 900)
    assert digest == "56590594f97921b09b18f166befe0d1319b198bbcdad7ca73382de2f88fe9aa1"
    assert tokens.grant(params | {"signature": digest}, 1576074319000 + 59_000, "::1", None).account == ""
    with pytest.raises(RpcError):
        tokens.grant(params | {"signature": digest}, 1576074319000 + 61_000, "::1", None)

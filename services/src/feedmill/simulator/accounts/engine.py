"""The seeded order engine: which account does what next, and what that changes.

``step(now_ms)`` is one action: an order placed, filled in part or whole, cancelled, expired, crossed with the account's
own other order, or money moved. The sequence depends on the seed, on the times given and on the prices asked for;
nothing else. Every change is told to ``tell`` as an ``Update``, in order.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Collection
from decimal import Decimal
from itertools import takewhile

from feedmill.simulator.accounts.model import OPEN, ZERO, Account, Balance, Fill, Order, Transfer, Update
from feedmill.simulator.accounts.rules import Price, Rules
from feedmill.simulator.catalog import Listing

MAX_OPEN = 8
"""Open orders of an account; one that has them fills or cancels instead."""
_SIZES = (20, 50, 120, 400, 900)
"""Worth of an order in dollars, about."""
Tell = Callable[[Update], None]


def make_accounts(
    venue: str, count: int, seed: int, rules: Rules, history: int, assets: Collection[str] = ()
) -> list[Account]:
    """``count`` accounts with their first balances; of ``assets`` only, where there are any."""
    made = []
    for number in range(1, count + 1):
        rng = random.Random(f"{seed}:{venue}:account:{number}")
        name = f"{venue.replace('/', '-').lower()}-{number:04d}"
        balances = {asset: Balance(amount * rng.randint(1, 4)) for asset, amount in rules.start.items()}
        for asset in balances.keys() - set(assets or balances):
            balances[asset] = Balance()
        made.append(Account(name, number, 100_000_000 + number, number % 2 == 0, balances, history))
    return made


class OrderEngine:
    """``ids``: the first order and trade id (per instrument); a later run into one database needs larger ones."""

    def __init__(
        self,
        accounts: list[Account],
        listings: dict[str, Listing],
        rules: Rules,
        price: Price,
        tell: Tell,
        *,
        seed: int,
        ids: int,
    ) -> None:
        self.accounts = accounts
        self.rules = rules
        self._listings = [listings[native] for native in rules.natives]
        self._price = price
        self._tell = tell
        self._rng = random.Random(f"{seed}:orders")
        self._order_ids = {each.native: ids + zlib.crc32(each.native.encode()) % 1000 for each in self._listings}
        # Far from the order ids, so that who takes one for the other is found out.
        self._trade_ids = {native: first + 7_000_000 for native, first in self._order_ids.items()}
        self._transfer_ids = ids
        self.steps = 0

    def step(self, now_ms: int) -> None:
        """One action of one account. It may come to nothing (an account without money for it)."""
        self.steps += 1
        rng = self._rng
        account = self.accounts[rng.randrange(len(self.accounts))]
        chance = rng.random()
        if account.open and (chance < 0.45 or len(account.open) >= MAX_OPEN):
            self._fill_some(account, now_ms)
        elif account.open and chance < 0.53:
            self._end(account, self._some_open(account), now_ms, "CANCELED", "")
        elif account.open and chance < 0.57:
            self._end(account, self._some_open(account), now_ms, self.rules.expired, "EXCHANGE_CANCELED")
        elif chance < 0.61:
            self._transfer(account, now_ms)
        elif chance < 0.66:
            self._cross_own(account, now_ms)
        elif chance < 0.74:
            self._take(account, now_ms, market=True)
        elif chance < 0.79:
            self._take(account, now_ms, market=False)
        else:
            self._rest(account, now_ms)

    # -- actions

    def _rest(self, account: Account, now_ms: int) -> None:
        order = self._order(account, now_ms, "LIMIT", "GTC", offset=self._rng.randint(1, 40))
        if order is not None:
            self._place(account, order, now_ms)

    def _take(self, account: Account, now_ms: int, *, market: bool) -> None:
        """A market order filled in up to three parts, or an IOC order whose rest expires."""
        order = self._order(account, now_ms, *(("MARKET", "GTC") if market else ("LIMIT", "IOC")), offset=-20)
        if order is None:
            return
        self._place(account, order, now_ms)
        parts = self._parts(order)
        for size in parts if market else parts[:1]:
            slip = self._rng.randint(0, 5) * order.listing.tick
            market_price = self._price(order.listing.native)
            price = market_price + slip if order.buy else market_price - slip
            if order.price:
                price = min(price, order.price) if order.buy else max(price, order.price)
            self._fill(account, order, price, size, now_ms, maker=False)
        if order.status in OPEN:
            reason = "UNFILLED_IOC_QUANTITY_EXPIRED"
            self._end(account, order, now_ms, self.rules.expired, reason)

    def _cross_own(self, account: Account, now_ms: int) -> None:
        """The account's order meets its own: one trade id, two fills."""
        resting = self._order(account, now_ms, "LIMIT", "GTC", offset=1)
        if resting is None:
            return
        self._place(account, resting, now_ms)
        taking = self._order(account, now_ms, "LIMIT", "GTC", offset=0, against=resting)
        if taking is None:
            return
        self._place(account, taking, now_ms)
        trade_id = self._next_trade(resting.listing)
        for order, maker in ((taking, False), (resting, True)):
            self._fill(account, order, resting.price, resting.size, now_ms, maker=maker, trade_id=trade_id)

    def _fill_some(self, account: Account, now_ms: int) -> None:
        order = self._some_open(account)
        parts = self._parts(order)
        self._fill(account, order, order.price, parts[0], now_ms, maker=True)

    def _transfer(self, account: Account, now_ms: int) -> None:
        rng = self._rng
        asset = rng.choice(list(self.rules.start))
        part = self.rules.start[asset] / 100 * rng.randint(1, 5)
        balance = account.balances[asset]
        amount = -part if rng.random() < 0.5 and balance.free > 10 * part else part
        # Of two equal ones within a ms Binance says nothing that tells them apart: no receiver could count them.
        now = takewhile(lambda each: each.time_ms == now_ms, reversed(account.transfers))
        told = {each.amount for each in now if each.asset == asset}
        while amount in told:
            amount += part / 100
        balance.free += amount
        self._transfer_ids += 1
        transfer = Transfer(asset, amount, now_ms, self._transfer_ids)
        account.transfers.append(transfer)
        account.updated_ms = now_ms
        self._tell(Update(account, now_ms, "TRANSFER", (asset,), transfer=transfer))

    # -- parts of them

    def _some_open(self, account: Account) -> Order:
        return self._rng.choice(list(account.open.values()))

    def _parts(self, order: Order) -> list[Decimal]:
        """What is left as one, two or three whole parts."""
        lot = order.listing.lot
        lots = int(order.left / lot)
        count = min(lots, self._rng.choice((1, 2, 2, 3)))
        first = lots // count
        return [first * lot] * (count - 1) + [(lots - first * (count - 1)) * lot]

    def _order(
        self, account: Account, now_ms: int, kind: str, tif: str, *, offset: int, against: Order | None = None
    ) -> Order | None:
        """An order the account can pay, ``offset`` ticks away from the market (below 0: through it); else None."""
        rng = self._rng
        if against is not None:
            listing, price, size = against.listing, against.price, against.size
            sides = ["SELL" if against.buy else "BUY"]
        else:
            listing = rng.choice(self._listings)
            price, size = self._price(listing.native), self._size(listing)
            sides = ["BUY", "SELL"] if rng.random() < 0.5 else ["SELL", "BUY"]
        ident = self._order_ids[listing.native] + 1
        for side in sides:
            away = offset * listing.tick
            limit = ZERO if kind == "MARKET" else price - away if side == "BUY" else price + away
            client_id = f"x-{account.number}-{ident}"
            order = Order(listing, ident, client_id, side, kind, tif, limit, size, now_ms, now_ms)
            if (kind == "MARKET" or limit > 0) and self.rules.affordable(account, order):
                self._order_ids[listing.native] = ident
                return order
        return None

    def _size(self, listing: Listing) -> Decimal:
        worth = Decimal(self._rng.choice(_SIZES)) * self._rng.randint(1, 9)
        if listing.inverse:
            return max(1, int(worth / listing.lot)) * listing.lot
        if listing.quote == "BTC":
            worth /= 50_000
        return max(1, int(worth / self._price(listing.native) / listing.lot)) * listing.lot

    def _place(self, account: Account, order: Order, now_ms: int) -> None:
        assets = self.rules.reserve(account, order)
        account.open[order.listing.native, order.id] = order
        account.orders.append(order)
        account.updated_ms = now_ms
        self._tell(Update(account, now_ms, "NEW", assets, order=order))

    def _next_trade(self, listing: Listing) -> int:
        self._trade_ids[listing.native] += 1
        return self._trade_ids[listing.native]

    def _fill(
        self,
        account: Account,
        order: Order,
        price: Decimal,
        size: Decimal,
        now_ms: int,
        *,
        maker: bool,
        trade_id: int | None = None,
    ) -> None:
        paid = self.rules.fill(account, order, price, size, maker=maker)
        trade = self._next_trade(order.listing) if trade_id is None else trade_id
        order.filled += size
        order.quote += price * size
        order.updated_ms = account.updated_ms = now_ms
        order.status = "PARTIALLY_FILLED" if order.left else "FILLED"
        if not order.left:
            del account.open[order.listing.native, order.id]
        if paid.position is not None:
            paid.position.updated_ms = now_ms
        fill = Fill(
            order.listing, trade, order.id, order.side, price, size, paid.fee, paid.fee_asset, maker, paid.pnl, now_ms,
            order.type, order.status,
        )  # fmt: skip
        account.fills.append(fill)
        self._tell(Update(account, now_ms, "TRADE", paid.assets, order=order, fill=fill, position=paid.position))

    def _end(self, account: Account, order: Order, now_ms: int, status: str, reason: str) -> None:
        assets = self.rules.release(account, order)
        order.status = status
        order.updated_ms = account.updated_ms = now_ms
        del account.open[order.listing.native, order.id]
        self._tell(Update(account, now_ms, status, assets, order=order, reason=reason))

"""What differs between the venues in money: assets, fees, what an order locks, what a fill moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Protocol

from feedmill.simulator.accounts.model import ZERO, Account, Balance, Order, Position
from feedmill.simulator.accounts.positions import EIGHT, apply_fill
from feedmill.simulator.catalog import Listing

Price = Callable[[str], Decimal]
"""Native name -> the market's price now (a multiple of the tick)."""
BNB_DISCOUNT = Decimal("0.75")


@dataclass(frozen=True, slots=True)
class Paid:
    """What a fill did: its fee, what it realised, the assets it touched and the position after it."""

    fee: Decimal
    fee_asset: str
    pnl: Decimal
    assets: tuple[str, ...]
    position: Position | None = None


class Rules(Protocol):
    natives: tuple[str, ...]
    """Instruments the accounts trade."""
    start: dict[str, Decimal]
    """What every account begins with, times 1 to 4."""
    expired: str
    """Status of an order the venue ended."""

    def affordable(self, account: Account, order: Order) -> bool: ...

    def reserve(self, account: Account, order: Order) -> tuple[str, ...]:
        """Lock what a resting order needs; returns the assets touched."""

    def release(self, account: Account, order: Order) -> tuple[str, ...]:
        """Unlock what an ended order still held."""

    def fill(self, account: Account, order: Order, price: Decimal, size: Decimal, *, maker: bool) -> Paid: ...


def _cut(value: Decimal) -> Decimal:
    return value.quantize(EIGHT, ROUND_DOWN)


def _balance(account: Account, asset: str) -> Balance:
    return account.balances.setdefault(asset, Balance())


def _bnb_fee(account: Account, quote_amount: Decimal, rate: Decimal, price: Decimal) -> Decimal | None:
    """The fee in BNB when the account wants it and has it."""
    if not account.pays_bnb:
        return None
    fee = _cut(quote_amount * rate * BNB_DISCOUNT / price)
    return fee if _balance(account, "BNB").free >= fee else None


class SpotRules:
    """Limit orders lock what they may cost; the fee is taken from what is received, or from BNB."""

    natives: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "ETHBTC")
    expired = "EXPIRED"
    rate = Decimal("0.001")

    def __init__(self, price: Price) -> None:
        self._price = price
        self.start = {"USDT": Decimal(50_000), "BTC": Decimal(1), "ETH": Decimal(20), "BNB": Decimal(5)}

    def _cost(self, order: Order) -> tuple[str, Decimal]:
        if not order.buy:
            return order.listing.base, order.left
        # A market order has no limit: 2 % above the market covers what its fills may cost.
        price = order.price or self._price(order.listing.native) * Decimal("1.02")
        return order.listing.quote, order.left * price

    def affordable(self, account: Account, order: Order) -> bool:
        asset, amount = self._cost(order)
        return _balance(account, asset).free >= amount

    def reserve(self, account: Account, order: Order) -> tuple[str, ...]:
        if not order.price:
            return ()
        asset, amount = self._cost(order)
        balance = _balance(account, asset)
        balance.free -= amount
        balance.locked += amount
        return (asset,)

    def release(self, account: Account, order: Order) -> tuple[str, ...]:
        if not order.price or not order.left:
            return ()
        asset, amount = self._cost(order)
        balance = _balance(account, asset)
        balance.free += amount
        balance.locked -= amount
        return (asset,)

    def fill(self, account: Account, order: Order, price: Decimal, size: Decimal, *, maker: bool) -> Paid:
        listing = order.listing
        base, quote = _balance(account, listing.base), _balance(account, listing.quote)
        if order.buy:
            if order.price:
                quote.locked -= order.price * size
                quote.free += (order.price - price) * size
            else:
                quote.free -= price * size
            received, amount, into = listing.base, size, base
        else:
            if order.price:
                base.locked -= size
            else:
                base.free -= size
            received, amount, into = listing.quote, price * size, quote
        into.free += amount
        fee = None
        if listing.quote == "USDT":
            fee = _bnb_fee(account, price * size, self.rate, self._price("BNBUSDT"))
        if fee is None:
            fee, fee_asset = _cut(amount * self.rate), received
        else:
            fee_asset = "BNB"
        _balance(account, fee_asset).free -= fee
        return Paid(fee, fee_asset, ZERO, tuple(dict.fromkeys((listing.base, listing.quote, fee_asset))))


class FuturesRules:
    """Positions in one-way mode; the wallet changes by fees and by what is realised. Nothing is locked."""

    def __init__(
        self,
        price: Price,
        natives: tuple[str, ...],
        start: dict[str, Decimal],
        *,
        maker: Decimal,
        taker: Decimal,
        expired: str,
        bnb: bool,
    ) -> None:
        self._price = price
        self.natives = natives
        self.start = start
        self.expired = expired
        self._maker = maker
        self._taker = taker
        self._bnb = bnb

    def affordable(self, account: Account, order: Order) -> bool:
        """Positions stay within twice the wallet, so that no account is ever liquidated."""
        listing = order.listing
        held = account.positions.get(listing.native)
        after = (held.size if held else ZERO) + (order.size if order.buy else -order.size)
        price = self._price(listing.native)
        value = abs(after) / price if listing.inverse else abs(after) * price
        smaller = held is not None and abs(after) < abs(held.size)
        return smaller or value <= 2 * _balance(account, listing.settle).total

    def reserve(self, account: Account, order: Order) -> tuple[str, ...]:
        return ()

    def release(self, account: Account, order: Order) -> tuple[str, ...]:
        return ()

    def fill(self, account: Account, order: Order, price: Decimal, size: Decimal, *, maker: bool) -> Paid:
        listing: Listing = order.listing
        position = account.positions.get(listing.native)
        if position is None:
            position = account.positions[listing.native] = Position(listing.native, listing.symbol)
        pnl = apply_fill(position, size if order.buy else -size, price, inverse=listing.inverse)
        value = size / price if listing.inverse else size * price
        rate = self._maker if maker else self._taker
        fee = _bnb_fee(account, value, rate, self._price("BNBUSDT")) if self._bnb else None
        fee_asset = listing.settle
        if fee is None:
            fee = _cut(value * rate)
        else:
            fee_asset = "BNB"
        _balance(account, listing.settle).free += pnl
        _balance(account, fee_asset).free -= fee
        return Paid(fee, fee_asset, pnl, tuple(dict.fromkeys((listing.settle, fee_asset))), position)


def usdm_rules(price: Price) -> FuturesRules:
    return FuturesRules(
        price,
        ("BTCUSDT", "ETHUSDT", "SOLUSDT"),
        {"USDT": Decimal(20_000), "BNB": Decimal(2)},
        maker=Decimal("0.0002"),
        taker=Decimal("0.0005"),
        expired="EXPIRED",
        bnb=True,
    )


def deribit_rules(price: Price) -> FuturesRules:
    return FuturesRules(
        price,
        ("BTC-PERPETUAL", "ETH-PERPETUAL", "BTC_USDC-PERPETUAL"),
        {"BTC": Decimal(1), "ETH": Decimal(20), "USDC": Decimal(50_000)},
        maker=ZERO,
        taker=Decimal("0.0005"),
        expired="CANCELED",
        bnb=False,
    )


def rules_of(venue: str, price: Price) -> Rules:
    """The rules of a venue."""
    if venue == "binance/Spot":
        return SpotRules(price)
    return usdm_rules(price) if venue == "binance/UsdM" else deribit_rules(price)

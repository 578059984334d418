"""What the order engine deals in: accounts, orders, fills, positions, transfers. Exact decimals; times are ms."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal

from feedmill.simulator.catalog import Listing

ZERO = Decimal(0)
OPEN = ("NEW", "PARTIALLY_FILLED")


@dataclass(slots=True)
class Balance:
    free: Decimal = ZERO
    locked: Decimal = ZERO

    @property
    def total(self) -> Decimal:
        return self.free + self.locked


@dataclass(slots=True)
class Position:
    """``size`` is signed, in the venue's unit of amount; 0 = flat."""

    native: str
    symbol: str
    size: Decimal = ZERO
    entry: Decimal = ZERO
    realised: Decimal = ZERO
    """Since the account began, before fees."""
    updated_ms: int = 0


@dataclass(slots=True)
class Order:
    listing: Listing
    id: int
    client_id: str
    side: str
    """BUY | SELL."""
    type: str
    """LIMIT | MARKET."""
    tif: str
    """GTC | IOC."""
    price: Decimal
    """0 for a market order."""
    size: Decimal
    created_ms: int
    updated_ms: int
    filled: Decimal = ZERO
    quote: Decimal = ZERO
    """Sum of price * size of its fills."""
    status: str = "NEW"
    """NEW | PARTIALLY_FILLED | FILLED | CANCELED | EXPIRED."""

    @property
    def buy(self) -> bool:
        return self.side == "BUY"

    @property
    def left(self) -> Decimal:
        return self.size - self.filled


@dataclass(frozen=True, slots=True)
class Fill:
    listing: Listing
    trade_id: int
    order_id: int
    side: str
    price: Decimal
    size: Decimal
    fee: Decimal
    fee_asset: str
    maker: bool
    pnl: Decimal
    """Realised by this fill, before fees; 0 on Spot."""
    time_ms: int
    order_type: str
    order_status: str
    """Right after this fill."""

    @property
    def quote(self) -> Decimal:
        return self.price * self.size


@dataclass(frozen=True, slots=True)
class Transfer:
    """A deposit (amount above 0) or a withdrawal."""

    asset: str
    amount: Decimal
    time_ms: int
    id: int


@dataclass(slots=True)
class Account:
    name: str
    number: int
    uid: int
    pays_bnb: bool
    balances: dict[str, Balance]
    history: int
    """Orders and fills kept for REST."""
    positions: dict[str, Position] = field(default_factory=dict)
    open: dict[tuple[str, int], Order] = field(default_factory=dict)
    orders: deque[Order] = field(init=False)
    fills: deque[Fill] = field(init=False)
    transfers: deque[Transfer] = field(init=False)
    updated_ms: int = 0

    def __post_init__(self) -> None:
        self.orders = deque(maxlen=self.history)
        self.fills = deque(maxlen=self.history)
        self.transfers = deque(maxlen=self.history)


@dataclass(frozen=True, slots=True)
class Update:
    """One thing that happened to an account; the mutable parts are as they are right after it."""

    account: Account
    time_ms: int
    execution: str
    """NEW | TRADE | CANCELED | EXPIRED | TRANSFER."""
    assets: tuple[str, ...] = ()
    """Those whose balance may have changed."""
    order: Order | None = None
    fill: Fill | None = None
    position: Position | None = None
    transfer: Transfer | None = None
    reason: str = ""
    """Why an order expired, in the venue's words."""

"""What can be imported: the fields of each target, what others call them, and the table they end in: data only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from feedmill.importing import values

Reader = Callable[[object], str]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a target."""

    name: str
    read: Reader
    names: tuple[str, ...] = ()
    """What others call it, in lower case; its own name counts too."""
    needed: bool = False
    column: str = ""
    """Of the table; empty = it is no column of its own (account, symbol)."""
    type: str = "text"
    few: bool = False
    """Rows repeat a few values: each is read once."""


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    tables: tuple[str, ...]
    """Names of tables that are taken for it, in lower case."""
    fields: tuple[Field, ...]
    table: str = ""
    key: tuple[str, ...] = ()
    """Columns that find a stored row again, besides account and instrument."""
    account: bool = True
    instrument: bool = True
    fixed: dict[str, str] = field(default_factory=dict)
    """Column -> SQL of its value, over the staged row ``s``."""
    current: str = ""
    """Table of the state as it stands, kept beside."""
    current_key: str = ""
    rank: tuple[str, ...] = ()
    """Columns by which a state is later than another."""


TIME = ("time", "timestamp", "ts", "datetime", "date", "created_at", "updated_at", "executed_at", "transacttime", "t")
ACCOUNT = Field("account", values.account, ("account_name", "account_id", "subaccount"), few=True)
SYMBOL = Field(
    "symbol", values.symbol, ("pair", "market", "instrument", "instrument_name", "ticker", "s"), True, few=True
)
SIDE = Field("side", values.side, ("direction", "type_side"), True, "side", "smallint", few=True)
ORDER_ID = ("order", "orderid", "exchange_order_id")
CLIENT_ID = Field("client_order_id", values.word, ("clientorderid", "client_id", "label"), False, "client_order_id")
IMPORTED = "4"
_MOMENT = "'epoch'::timestamptz + (s.time / 1000) * interval '1 microsecond'"

FILLS = Target(
    "fills",
    ("fills", "fill", "trades", "my_trades", "mytrades", "user_trades", "transactions", "executions", "deals"),
    (
        ACCOUNT, SYMBOL, SIDE, CLIENT_ID,
        Field("trade_id", values.word, ("id", "tradeid", "tid", "exec_id", "execution_id"), True, "trade_id"),
        Field("order_id", values.word, ORDER_ID, True, "order_id"),
        Field("price", values.decimal, ("px", "rate", "fill_price"), True, "price", "numeric"),
        Field("size", values.decimal, ("amount", "qty", "quantity", "volume", "filled"), True, "size", "numeric"),
        Field("quote", values.decimal, ("cost", "quoteqty", "quote_qty", "total", "value"), False, "quote", "numeric"),
        Field("fee", values.decimal, ("commission", "fee_amount", "fee_cost"), False, "fee", "numeric"),
        Field(
            "fee_asset", values.word, ("commissionasset", "commission_asset", "fee_currency"),
            False, "fee_asset", few=True,
        ),
        Field(
            "maker", values.flag, ("is_maker", "ismaker", "takerormaker", "liquidity"),
            False, "maker", "boolean", few=True,
        ),
        Field("time", values.moment, TIME, True, "exchange_ns", "bigint"),
    ),
    "fills", ("trade_id", "order_id"),
    fixed={"time": _MOMENT, "receive_ns": "s.time", "flags": IMPORTED},
)  # fmt: skip
ORDERS = Target(
    "orders",
    ("orders", "order", "order_history", "my_orders", "open_orders", "closed_orders"),
    (
        ACCOUNT, SYMBOL, SIDE, CLIENT_ID,
        Field("order_id", values.word, ("id", *ORDER_ID), True, "order_id"),
        Field("type", values.word, ("order_type", "ordertype", "kind"), True, "type", few=True),
        Field("price", values.decimal, ("limit_price", "px"), False, "price", "numeric"),
        Field("size", values.decimal, ("amount", "qty", "quantity", "origqty", "volume"), False, "size", "numeric"),
        Field(
            "filled", values.decimal, ("executedqty", "filled_amount", "filled_qty", "filled_size"),
            True, "filled", "numeric",
        ),
        Field("status", values.status, ("state", "order_state"), True, "status", few=True),
        Field("time", values.moment, ("updatetime", "last_update", *TIME), True, "venue_ns", "bigint"),
    ),
    "order_history", ("order_id", "venue_ns", "filled", "status", "price", "size"),
    fixed={
        "time": _MOMENT, "receive_ns": "s.time", "flags": IMPORTED,
        "terminal": "s.status IN ('filled', 'cancelled', 'rejected', 'expired')",
    },
    current="orders", current_key="account_id, instrument_id, order_id", rank=("venue_ns", "filled", "terminal"),
)  # fmt: skip
BALANCES = Target(
    "balances",
    ("balances", "balance", "wallet", "wallets", "balance_history"),
    (
        ACCOUNT,
        Field("asset", values.word, ("currency", "coin", "symbol"), True, "asset", few=True),
        Field("total", values.decimal, ("balance", "amount", "wallet_balance"), True, "total", "numeric"),
        Field("free", values.decimal, ("available", "available_funds"), False, "free", "numeric"),
        Field("locked", values.decimal, ("used", "hold", "in_orders", "frozen"), False, "locked", "numeric"),
        Field("time", values.moment, TIME, True, "venue_ns", "bigint"),
    ),
    "balance_history", ("asset", "venue_ns", "total", "free", "locked"), instrument=False,
    fixed={"time": _MOMENT, "receive_ns": "s.time", "flags": IMPORTED},
    current="balances", current_key="account_id, asset", rank=("venue_ns",),
)  # fmt: skip
CANDLES = Target(
    "candles",
    ("candles", "candle", "ohlc", "ohlcv", "klines", "kline", "bars"),
    (
        SYMBOL,
        Field("interval", values.word, ("timeframe", "tf", "resolution"), True, "interval", few=True),
        Field("open", values.decimal, ("o",), True, "open", "numeric"),
        Field("high", values.decimal, ("h",), True, "high", "numeric"),
        Field("low", values.decimal, ("l",), True, "low", "numeric"),
        Field("close", values.decimal, ("c",), True, "close", "numeric"),
        Field("volume", values.decimal, ("v", "vol", "base_volume"), True, "volume", "numeric"),
        Field("quote_volume", values.decimal, ("quotevolume", "turnover"), False, "quote_volume", "numeric"),
        Field("trades", values.count, ("count", "n", "num_trades"), False, "trades", "bigint"),
        Field("time", values.moment, ("open_time", "opentime", *TIME), True, "", "bigint"),
    ),
    "venue_candles", ("interval", "open_time"), account=False,
    fixed={"closed": "true", "exchange_ns": "0", "receive_ns": "s.time", "open_time": _MOMENT},
)  # fmt: skip
CREDENTIALS = Target(
    "credentials",
    ("credentials", "api_keys", "apikeys", "keys", "secrets", "accounts", "exchange_keys"),
    (
        Field("account", values.account, ("name", "account_name", "label", "_key"), True),
        Field("exchange", values.word, ("venue", "broker"), True),
        Field("market", values.word, ("market_type", "segment"), True),
        Field("apiKey", values.word, ("api_key", "apikey", "key", "client_id", "public_key"), True),
        Field("apiSecret", values.word, ("api_secret", "apisecret", "secret", "client_secret", "secret_key"), True),
    ),
    instrument=False,
)  # fmt: skip
TARGETS = {target.name: target for target in (FILLS, ORDERS, BALANCES, CANDLES, CREDENTIALS)}

"""What ``feedmill balances``, ``orders`` and ``fills`` ask. $1 an account or null; the last parameter is the limit."""

# ruff: noqa: S608 (put together from constants of this file only)

from __future__ import annotations

_NAMES = """
    JOIN accounts a ON a.id = t.account_id AND ($1::text IS NULL OR $1 IN (a.name, a.namespace || '/' || a.name))"""
_INSTRUMENT = """
    JOIN instruments i ON i.id = t.instrument_id AND ($2::text IS NULL OR $2 IN (i.symbol, i.native))"""
_ACCOUNT = "CASE a.namespace WHEN 'default' THEN '' ELSE a.namespace || '/' END || a.name AS account"
_SIDE = "CASE t.side WHEN 1 THEN 'buy' ELSE 'sell' END AS side"

_SHORT_TIME = "to_char(t.time AT TIME ZONE 'UTC', 'MM-DD HH24:MI:SS') AS time"

_BALANCES = f"""
SELECT {_ACCOUNT}, {{columns}} FROM balances t {_NAMES}
WHERE ($2::text IS NULL OR t.asset = $2) AND ($3::bool OR t.total <> 0)
ORDER BY a.namespace, a.name, t.asset LIMIT $4
"""
_ORDERS = f"""
SELECT {_ACCOUNT}, i.symbol, {{columns}}
FROM orders t {_NAMES} {_INSTRUMENT}
WHERE t.venue_ns >= $3::bigint AND (NOT $4::bool OR NOT t.terminal)
ORDER BY t.venue_ns DESC, t.order_id DESC LIMIT $5
"""
_FILLS = f"""
SELECT {_ACCOUNT}, i.symbol, {{columns}}
FROM fills t {_NAMES} {_INSTRUMENT}
WHERE t.exchange_ns >= $3::bigint AND ($4::text IS NULL OR t.order_id = $4)
ORDER BY t.exchange_ns DESC, t.trade_id DESC LIMIT $5
"""

BALANCES = _BALANCES.format(columns="t.asset, t.total, t.free, t.locked, t.equity, t.time")
SHORT_BALANCES = _BALANCES.format(columns=f"t.asset, t.total, t.free, t.locked, {_SHORT_TIME}")
ORDERS = _ORDERS.format(
    columns=f"t.order_id, {_SIDE}, t.type, t.price, t.size, t.filled, t.average_price, t.status, t.reason, t.time"
)
SHORT_ORDERS = _ORDERS.format(columns=f"{_SIDE}, t.price, t.filled || '/' || t.size AS filled, t.status, {_SHORT_TIME}")
FILLS = _FILLS.format(
    columns=f"t.trade_id, t.order_id, {_SIDE}, t.price, t.size, t.fee, t.fee_asset, "
    f"CASE t.maker WHEN true THEN 'maker' WHEN false THEN 'taker' END AS role, t.time"
)
SHORT_FILLS = _FILLS.format(
    columns=f"{_SIDE}, t.price, t.size, concat_ws(' ', t.fee, t.fee_asset) AS fee, {_SHORT_TIME}"
)
"""What fits into a narrow terminal; csv, json and a wide one have the ids too."""

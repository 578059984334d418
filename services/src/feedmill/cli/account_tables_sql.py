"""What ``feedmill balances``, ``orders`` and ``fills`` ask. $1 an account or null; the last parameter is the limit."""

# ruff: noqa: S608 (put together from constants of this file only)

from __future__ import annotations

_NAMES = """
    JOIN accounts a ON a.id = t.account_id AND ($1::text IS NULL OR $1 IN (a.name, a.namespace || '/' || a.name))"""
_INSTRUMENT = """
    JOIN instruments i ON i.id = t.instrument_id
    AND ($2::text IS NULL OR upper($2) IN (upper(i.symbol), upper(i.native)))"""
_ACCOUNT = "CASE a.namespace WHEN 'default' THEN '' ELSE a.namespace || '/' END || a.name AS account"
_SIDE = "CASE t.side WHEN 1 THEN 'buy' ELSE 'sell' END AS side"
_ROLE = "CASE t.maker WHEN true THEN 'maker' WHEN false THEN 'taker' END AS role"
# Of today the time of day, else the day.
_AT = """
    to_char(t.time AT TIME ZONE 'UTC', CASE WHEN t.time > now() - interval '20 hours' THEN 'HH24:MI:SS'
    ELSE 'YYYY-MM-DD' END) AS utc"""


def _trimmed(*columns: str) -> str:
    """Numbers for people: without the zeros at the end that an exchange writes. Csv and json have them."""
    return ", ".join(f"trim_scale(t.{column}) AS {column}" for column in columns)


_BALANCES = f"""
SELECT {_ACCOUNT}, {{columns}} FROM balances t {_NAMES}
WHERE ($2::text IS NULL OR upper(t.asset) = upper($2)) AND ($3::bool OR t.total <> 0)
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

KNOWN = """
SELECT count(*) AS all, count(*) FILTER (WHERE $1::text IS NULL OR $1 IN (name, namespace || '/' || name)) AS named
FROM accounts
"""
"""Removed ones too: their data stays."""

BALANCES = (
    _BALANCES.format(columns=f"t.asset, {_trimmed('total', 'free', 'locked')}, {_AT}"),
    _BALANCES.format(columns=f"t.asset, {_trimmed('total', 'free', 'locked', 'equity')}, {_AT}"),
    _BALANCES.format(columns="t.asset, t.total, t.free, t.locked, t.equity, t.time"),
)
ORDERS = (
    _ORDERS.format(
        columns=f"{_SIDE}, {_trimmed('price')}, trim_scale(t.filled) || '/' || trim_scale(t.size) AS filled, "
        f"CASE t.status WHEN 'partially_filled' THEN 'partly' ELSE t.status END AS status, {_AT}"
    ),
    _ORDERS.format(
        columns=f"t.order_id, {_SIDE}, t.type, {_trimmed('price', 'size', 'filled')}, "
        f"trim_scale(t.average_price) AS average, t.status, {_AT}"
    ),
    _ORDERS.format(
        columns=f"t.order_id, {_SIDE}, t.type, t.price, t.size, t.filled, t.average_price, t.status, t.reason, t.time"
    ),
)
FILLS = (
    _FILLS.format(
        columns=f"{_SIDE}, {_trimmed('price', 'size')}, concat_ws(' ', trim_scale(t.fee), t.fee_asset) AS fee, {_AT}"
    ),
    _FILLS.format(
        columns=f"t.trade_id, t.order_id, {_SIDE}, {_trimmed('price', 'size', 'fee')}, t.fee_asset AS of, "
        f"{_ROLE}, {_AT}"
    ),
    _FILLS.format(columns=f"t.trade_id, t.order_id, {_SIDE}, t.price, t.size, t.fee, t.fee_asset, {_ROLE}, t.time"),
)
"""A table of a narrow terminal, one of a wide one, csv and json."""

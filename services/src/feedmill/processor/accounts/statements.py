"""The SQL that stores account events. Each merges into what is there, so that order and repetition do not matter.

One statement must not meet a key twice: see :mod:`feedmill.processor.accounts.rows`.
"""

# ruff: noqa: S608 (put together from constants of this file only)

from __future__ import annotations

_TIME = "'epoch'::timestamptz + (u.ns / 1000) * interval '1 microsecond'"


def _num(*names: str) -> str:
    return ", ".join(f"nullif(u.{name}, '')::numeric" for name in names)


ACCOUNT = """
SELECT id, exchange, market FROM accounts WHERE namespace = $1 AND name = $2
ORDER BY removed_at IS NULL DESC, id DESC LIMIT 1
"""
"""One that was removed keeps what its stream still brings."""

INSTRUMENTS = "SELECT id, symbol FROM instruments WHERE exchange = $1 AND market = $2 AND symbol = ANY($3::text[])"

_ORDER_INTO = """(account_id, instrument_id, order_id, client_order_id, side, type, time_in_force, position_side,
    reduce_only, price, stop_price, size, filled, filled_quote, average_price, status, terminal, reason, time, venue_ns,
    created_ns, receive_ns, flags)"""
_ORDER_FROM = f"""
SELECT $1, u.i, u.o, u.c, u.s, u.t, u.tif, u.ps, u.ro, {_num("price", "stop", "size")},
       coalesce(nullif(u.filled, ''), '0')::numeric, {_num("fq", "ap")}, u.st, u.term, u.re,
       {_TIME}, u.ns, nullif(u.cns, 0), u.rns, u.fl
FROM unnest($2::int[], $3::text[], $4::text[], $5::smallint[], $6::text[], $7::text[], $8::text[], $9::bool[],
            $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bool[],
            $18::text[], $19::bigint[], $20::bigint[], $21::bigint[], $22::smallint[])
     AS u(i, o, c, s, t, tif, ps, ro, price, stop, size, filled, fq, ap, st, term, re, ns, cns, rns, fl)
"""
_RANK = "({0}.venue_ns, {0}.filled, {0}.terminal, {0}.receive_ns)"
_LATER = f"{_RANK.format('excluded')} >= {_RANK.format('o')}"
_SAME_STATE = "(excluded.venue_ns, excluded.filled, excluded.terminal) = (o.venue_ns, o.filled, o.terminal)"
_SAME_FILLS = "excluded.filled = o.filled"


def _text(name: str, when: str = "true") -> str:
    """The later one's, or where it says nothing the earlier one's."""
    later, earlier = (f"nullif({table}.{name}, '')" for table in ("excluded", "o"))
    return _pick(name, later, earlier, when, last="''")


def _value(name: str, when: str = "true") -> str:
    return _pick(name, f"excluded.{name}", f"o.{name}", when, last="NULL")


def _pick(name: str, new: str, old: str, when: str, last: str) -> str:
    end = "" if last == "NULL" else f", {last}"
    return (
        f"{name} = CASE WHEN {_LATER} THEN coalesce({new}, CASE WHEN {when} THEN {old} END{end})"
        f" ELSE coalesce({old}, CASE WHEN {when} THEN {new} END{end}) END"
    )


def _latest(*names: str) -> str:
    return ", ".join(f"{name} = CASE WHEN {_LATER} THEN excluded.{name} ELSE o.{name} END" for name in names)


ORDERS = f"""
INSERT INTO orders AS o {_ORDER_INTO} {_ORDER_FROM} ORDER BY u.i, u.o
ON CONFLICT (account_id, instrument_id, order_id) DO UPDATE SET
    {_text("client_order_id")}, {_text("time_in_force")}, {_text("position_side")}, {_value("reduce_only")},
    {_value("size")}, {_value("created_ns")}, {_value("filled_quote", _SAME_FILLS)},
    {_value("average_price", _SAME_FILLS)}, {_value("price", _SAME_STATE)}, {_value("stop_price", _SAME_STATE)},
    {_text("reason", _SAME_STATE)},
    {_latest("side", "type", "filled", "status", "terminal", "time", "venue_ns", "receive_ns", "flags")}
"""
ORDER_HISTORY = f"""
INSERT INTO order_history {_ORDER_INTO} {_ORDER_FROM} ORDER BY u.ns ON CONFLICT DO NOTHING
"""

_FEE_TOLD = "({0}.fee_asset IS NOT NULL, {0}.fee IS NOT NULL)"
_MORE_FEE = f"{_FEE_TOLD.format('excluded')} > {_FEE_TOLD.format('f')}"
FILLS = f"""
WITH given AS (
    SELECT u.i, u.tr, u.o, u.c, u.s, u.ps, u.price::numeric AS p, u.size::numeric AS z,
           nullif(u.quote, '')::numeric AS q, nullif(u.fee, '')::numeric AS fee, nullif(u.fa, '') AS fa, u.mk,
           nullif(u.vr, '')::numeric AS vr, {_TIME} AS at, u.ns, u.rns, u.fl
    FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::text[], $8::text[], $9::text[],
                $10::text[], $11::text[], $12::text[], $13::bool[], $14::text[], $15::bigint[], $16::bigint[],
                $17::smallint[])
         AS u(i, tr, o, c, s, ps, price, size, quote, fee, fa, mk, vr, ns, rns, fl)
)
INSERT INTO fills AS f (account_id, instrument_id, trade_id, order_id, client_order_id, side, position_side, price,
    size, quote, fee, fee_asset, maker, venue_realised, time, exchange_ns, receive_ns, flags)
SELECT $1, g.* FROM given g ORDER BY g.i, g.tr, g.o
ON CONFLICT (account_id, instrument_id, trade_id, order_id) DO UPDATE SET
    client_order_id = coalesce(nullif(f.client_order_id, ''), excluded.client_order_id),
    position_side = coalesce(nullif(f.position_side, ''), excluded.position_side),
    quote = coalesce(f.quote, excluded.quote),
    fee = CASE WHEN {_MORE_FEE} THEN excluded.fee ELSE f.fee END,
    fee_asset = CASE WHEN {_MORE_FEE} THEN excluded.fee_asset ELSE f.fee_asset END,
    maker = coalesce(f.maker, excluded.maker),
    venue_realised = coalesce(f.venue_realised, excluded.venue_realised)
WHERE (f.client_order_id = '' AND excluded.client_order_id <> '')
   OR (f.position_side = '' AND excluded.position_side <> '')
   OR (f.quote IS NULL AND excluded.quote IS NOT NULL) OR {_MORE_FEE}
   OR (f.maker IS NULL AND excluded.maker IS NOT NULL)
   OR (f.venue_realised IS NULL AND excluded.venue_realised IS NOT NULL)
RETURNING instrument_id, trade_id, order_id, xmax = 0 AS inserted
"""
"""Answers the fills that are new or know more than before; a fill told again is not written."""

_BALANCE_INTO = "(account_id, asset, total, free, locked, equity, time, venue_ns, receive_ns, flags)"
_BALANCE_FROM = f"""
SELECT $1, u.a, u.total::numeric, {_num("free", "locked", "equity")}, {_TIME}, u.ns, u.rns, u.fl
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::smallint[])
     AS u(a, total, free, locked, equity, ns, rns, fl)
"""
BALANCES = f"""
INSERT INTO balances AS b {_BALANCE_INTO} {_BALANCE_FROM} ORDER BY u.a
ON CONFLICT (account_id, asset) DO UPDATE SET
    total = excluded.total, free = excluded.free, locked = excluded.locked, equity = excluded.equity,
    time = excluded.time, venue_ns = excluded.venue_ns, receive_ns = excluded.receive_ns, flags = excluded.flags
WHERE (excluded.venue_ns, excluded.receive_ns) >= (b.venue_ns, b.receive_ns)
"""
BALANCE_HISTORY = f"""
INSERT INTO balance_history {_BALANCE_INTO} {_BALANCE_FROM} ORDER BY u.ns, u.rns ON CONFLICT DO NOTHING
"""

CHANGES = f"""
INSERT INTO balance_changes (account_id, asset, change, cause, venue_id, time, venue_ns, receive_ns, flags)
SELECT $1, u.a, u.ch::numeric, u.ca, nullif(u.id, ''), {_TIME}, u.ns, u.rns, u.fl
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::smallint[])
     AS u(a, ch, ca, id, ns, rns, fl)
ON CONFLICT DO NOTHING
"""

POSITIONS = f"""
INSERT INTO positions AS p (account_id, instrument_id, position_side, size, entry_price, mark_price, unrealised,
    venue_realised, time, venue_ns, receive_ns, flags)
SELECT $1, u.i, u.ps, u.size::numeric, {_num("entry", "mark", "un", "vr")}, {_TIME}, u.ns, u.rns, u.fl
FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[],
            $10::bigint[], $11::smallint[])
     AS u(i, ps, size, entry, mark, un, vr, ns, rns, fl)
ORDER BY u.i, u.ps
ON CONFLICT (account_id, instrument_id, position_side) DO UPDATE SET
    size = excluded.size, entry_price = excluded.entry_price, mark_price = excluded.mark_price,
    unrealised = excluded.unrealised, venue_realised = excluded.venue_realised, time = excluded.time,
    venue_ns = excluded.venue_ns, receive_ns = excluded.receive_ns, flags = excluded.flags
WHERE (excluded.venue_ns, excluded.receive_ns) >= (p.venue_ns, p.receive_ns)
"""

RECONCILED = """
UPDATE gaps SET state = 'closed', repaired_by = 'reconciled:' || $3::bigint WHERE id = $2 AND shard = $1
"""
LOSSES_REPAIRED = """
UPDATE gaps SET state = 'closed', repaired_by = 'reconciled:' || $2::bigint
WHERE shard = $1 AND state = 'open' AND cause IN ('redis_lost', 'restore')
  AND (detected_ns < $3::bigint OR (from_seq IS NOT NULL AND to_seq IS NULL))
"""
"""Commits that Redis forgot are told by the reconciliation that began after it was seen. Where the chain of commits
began anew (a first one, no last one), the distributor forgot too: what it reconciles is the whole account.
"""

RESTORED = "SELECT id FROM gaps WHERE shard = $1 AND cause = 'restore' AND state = 'open' AND revision = $2"
"""Of an account whose database was restored from a backup, and whose distributor does not know it yet."""
BEGAN_ANEW = "UPDATE gaps SET revision = revision + 1, detected_ns = $2::bigint WHERE id = ANY($1::text[])"
"""A reconciliation from here on tells what is missing."""

UNTOLD = """
SELECT i.symbol FROM instruments i WHERE i.id = ANY($1::int[])
AND NOT EXISTS (SELECT FROM instrument_versions v WHERE v.instrument_id = i.id)
"""
TERMS = """
SELECT DISTINCT ON (v.instrument_id) v.instrument_id, v.type, v.base, v.quote, v.settle FROM instrument_versions v
WHERE v.instrument_id = ANY($1::int[]) ORDER BY v.instrument_id, v.valid_from DESC
"""
RESULTS = """
SELECT instrument_id, position_side, size, average_price, realised, fills, last_ns FROM results
WHERE account_id = $1 AND instrument_id = ANY($2::int[])
"""
ALL_FILLS = """
SELECT position_side, exchange_ns, trade_id, order_id, side, price, size FROM fills
WHERE account_id = $1 AND instrument_id = $2
"""
RESULT = """
INSERT INTO results AS r (account_id, instrument_id, position_side, size, average_price, realised, currency, fills,
    last_ns)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (account_id, instrument_id, position_side) DO UPDATE SET
    size = excluded.size, average_price = excluded.average_price, realised = excluded.realised,
    currency = excluded.currency, fills = excluded.fills, last_ns = excluded.last_ns, updated_at = now()
"""
RESULTS_GONE = """
DELETE FROM results WHERE account_id = $1 AND instrument_id = $2 AND NOT position_side = ANY($3::text[])
"""
"""A fill whose position side was told later has left the row of those without one."""
FEES_ADDED = """
INSERT INTO result_fees AS r (account_id, instrument_id, asset, total)
SELECT $1, u.i, u.a, sum(u.fee::numeric) FROM unnest($2::int[], $3::text[], $4::text[]) AS u(i, a, fee) GROUP BY 2, 3
ON CONFLICT (account_id, instrument_id, asset) DO UPDATE SET total = r.total + excluded.total
"""
FEES_SUMMED = """
INSERT INTO result_fees (account_id, instrument_id, asset, total)
SELECT account_id, instrument_id, fee_asset, sum(fee) FROM fills
WHERE account_id = $1 AND instrument_id = ANY($2::int[]) AND fee IS NOT NULL AND fee_asset IS NOT NULL GROUP BY 1, 2, 3
ON CONFLICT (account_id, instrument_id, asset) DO UPDATE SET total = excluded.total
"""

"""The SQL of the finisher. Each statement is its own transaction, idempotent, and bounded by the ranges it is given.

``$1`` instruments, ``$2`` from, ``$3`` to (begins of 1m candles, both included), ``$4`` intervals, ``$5`` lengths.
"""

from __future__ import annotations

_RANGES = """
ranges AS (
    SELECT i, name, len, date_bin(len, lo, 'epoch') AS lo, date_bin(len, hi, 'epoch') AS hi
    FROM unnest($1::int[], $2::timestamptz[], $3::timestamptz[]) AS u(i, lo, hi),
         unnest($4::text[], $5::interval[]) AS k(name, len)
)"""

_WIDER = """
{ranges},
wide AS (
    SELECT r.i, r.name, r.len,
           coalesce((SELECT open_time FROM candles WHERE instrument_id = r.i AND interval = r.name AND open_time < r.lo
                     AND trades > 0 ORDER BY open_time DESC LIMIT 1), r.lo) AS lo,
           coalesce((SELECT open_time FROM candles WHERE instrument_id = r.i AND interval = r.name AND open_time > r.hi
                     AND trades > 0 ORDER BY open_time LIMIT 1), r.hi) AS hi
    FROM ranges r
)"""
_WIDE = _WIDER.format(ranges=_RANGES)
"""The ranges, each with the candle that has trades before and after it: what came may prove these."""

_ROLL_UP = """
WITH {ranges},
buckets AS (
    SELECT DISTINCT r.i, r.name, r.len, b FROM ranges r, generate_series(r.lo, r.hi, r.len) AS b
),
made AS (
    SELECT k.i, k.name, k.b, (array_agg(c.open ORDER BY c.first_id))[1] AS open, max(c.high) AS high, min(c.low) AS low,
           (array_agg(c.close ORDER BY c.last_id DESC))[1] AS close, sum(c.volume) AS volume,
           sum(c.quote_volume) AS quote_volume, sum(c.trades) AS trades, min(c.first_id) AS first_id,
           max(c.last_id) AS last_id
    FROM buckets k JOIN candles c ON c.instrument_id = k.i AND c.interval = $6 AND c.open_time >= k.b
         AND c.open_time < k.b + k.len AND c.trades > 0
    GROUP BY 1, 2, 3
)
INSERT INTO candles AS c (instrument_id, interval, open_time, open, high, low, close, volume, quote_volume, trades,
                          first_id, last_id, complete, venue_agrees)
SELECT i, name, b, open, high, low, close, volume, quote_volume, trades, first_id, last_id, false, NULL
FROM made ORDER BY i, b
ON CONFLICT (instrument_id, interval, open_time) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume,
    quote_volume = excluded.quote_volume, trades = excluded.trades, first_id = excluded.first_id,
    last_id = excluded.last_id, complete = false, venue_agrees = NULL
WHERE (c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trades, c.first_id, c.last_id) IS DISTINCT FROM
      (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.quote_volume,
       excluded.trades, excluded.first_id, excluded.last_id)
"""
ROLL_UP = _ROLL_UP.format(ranges=_RANGES)
"""Longer candles from shorter ones ($6) where anything was touched. A candle already equal is not written."""

_DENSE_PROOF = "c.trades = c.last_id - c.first_id + 1 AND p.last_id + 1 = c.first_id AND n.first_id = c.last_id + 1"
_OPEN_GAP = """
EXISTS (
    SELECT FROM gaps g WHERE g.instrument_id = {instrument} AND g.channel = 'Trades' AND g.state = 'open'
    AND coalesce(g.from_ns, 0) < extract(epoch FROM {to})::bigint * 1000000000
    AND coalesce(g.to_ns, 9223372036854775807) >= extract(epoch FROM {begin})::bigint * 1000000000
)"""
_GAPLESS_PROOF = "p.last_id IS NOT NULL AND n.first_id IS NOT NULL AND NOT " + _OPEN_GAP.format(
    instrument="c.instrument_id",
    begin="CASE WHEN c.trades > 0 THEN c.open_time ELSE p.open_time END",
    to="c.open_time + w.len",
)
"""An empty candle has its price from the one before, so nothing may be missing since then."""

_JUDGE = """
WITH {wide},
judged AS (
    SELECT DISTINCT c.instrument_id, c.interval, c.open_time, coalesce({proof}, false) AS proven
    FROM wide w JOIN candles c ON c.instrument_id = w.i AND c.interval = w.name AND c.open_time BETWEEN w.lo AND w.hi
         AND {which}
    LEFT JOIN LATERAL (
        SELECT last_id, open_time FROM candles WHERE instrument_id = c.instrument_id AND interval = c.interval
        AND open_time < c.open_time AND trades > 0 ORDER BY open_time DESC LIMIT 1
    ) p ON true
    LEFT JOIN LATERAL (
        SELECT first_id FROM candles WHERE instrument_id = c.instrument_id AND interval = c.interval
        AND open_time > c.open_time AND trades > 0 ORDER BY open_time LIMIT 1
    ) n ON true
)
UPDATE candles c SET complete = j.proven, venue_agrees = NULL FROM judged j
WHERE c.instrument_id = j.instrument_id AND c.interval = j.interval AND c.open_time = j.open_time
      AND c.complete IS DISTINCT FROM j.proven
RETURNING c.interval, c.complete
"""

_FILL = """
WITH {wide},
known AS (
    SELECT DISTINCT c.instrument_id AS i, w.name, w.len, c.open_time, c.close, c.first_id, c.last_id
    FROM wide w JOIN candles c ON c.instrument_id = w.i AND c.interval = w.name AND c.open_time BETWEEN w.lo AND w.hi
         AND c.trades > 0
),
pairs AS (
    SELECT i, name, len, open_time, close, last_id, lead(open_time) OVER next AS until,
           lead(first_id) OVER next AS until_id
    FROM known WINDOW next AS (PARTITION BY i, name ORDER BY open_time)
)
INSERT INTO candles AS c (instrument_id, interval, open_time, open, high, low, close, volume, quote_volume, trades,
                          first_id, last_id, complete, venue_agrees)
SELECT i, name, b, close, close, close, close, 0, 0, 0, NULL, NULL, true, NULL
FROM pairs q, generate_series(q.open_time + q.len, q.until - q.len, q.len) AS b
WHERE q.until > q.open_time + q.len AND q.until <= q.open_time + interval '7 days' + q.len AND {proof}
ORDER BY i, name, b
ON CONFLICT (instrument_id, interval, open_time) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, venue_agrees = NULL
WHERE c.trades = 0 AND c.close <> excluded.close
RETURNING c.interval
"""

JUDGE_DENSE = _JUDGE.format(wide=_WIDE, which="c.trades > 0", proof=_DENSE_PROOF)
JUDGE_GAPLESS = _JUDGE.format(wide=_WIDE, which="true", proof=_GAPLESS_PROOF)
"""Set ``complete`` where it is proven, and take it back where it no longer is. Where ids are dense, nothing can come
between two candles that adjoin, so the empty ones there are complete for good."""

FILL_DENSE = _FILL.format(wide=_WIDE, proof="q.until_id = q.last_id + 1")
FILL_GAPLESS = _FILL.format(
    wide=_WIDE, proof="NOT " + _OPEN_GAP.format(instrument="q.i", begin="q.open_time", to="q.until")
)
"""Empty candles between two that adjoin, at the price of the one before, also when that becomes another (late trades do
that where ids are not dense). A silence of more than seven days is not filled: its ends prove it as well."""

_RAW_FIRST = """
(SELECT t.first_id FROM trades t WHERE t.instrument_id = c.instrument_id AND t.time >= c.open_time
 AND t.time < c.open_time + w.len ORDER BY t.time, t.trade_id LIMIT 1)"""
_RAW_LAST = """
(SELECT t.last_id FROM trades t WHERE t.instrument_id = c.instrument_id AND t.time >= c.open_time
 AND t.time < c.open_time + w.len ORDER BY t.time DESC, t.trade_id DESC LIMIT 1)"""
_RAW = {
    "first_id": _RAW_FIRST,
    "last_id": _RAW_LAST,
    "trades": f"CASE WHEN c.trades = 0 THEN 0 ELSE {_RAW_LAST} - {_RAW_FIRST} + 1 END",
}
FIELDS = ("open", "high", "low", "close", "volume", "quote_volume", "trades", "first_id", "last_id")
"""Fields of a candle that can be compared with the venue's."""
_COMPARE = """
WITH {wide},
compared AS (
    SELECT DISTINCT c.instrument_id, c.interval, c.open_time, {tests} AS agrees
    FROM wide w JOIN candles c ON c.instrument_id = w.i AND c.interval = w.name AND c.open_time BETWEEN w.lo AND w.hi
         AND c.complete
    JOIN venue_candles v ON v.instrument_id = c.instrument_id AND v.interval = c.interval AND v.open_time = c.open_time
         AND v.closed
)
UPDATE candles c SET venue_agrees = k.agrees FROM compared k
WHERE c.instrument_id = k.instrument_id AND c.interval = k.interval AND c.open_time = k.open_time AND c.complete
      AND c.venue_agrees IS DISTINCT FROM k.agrees
RETURNING c.instrument_id, c.interval, c.open_time, c.venue_agrees
"""


# Ours is exact. A venue that writes fewer decimals has cut each trade's product to them before it added them up.
_SAME_TURNOVER = """
    CASE WHEN scale(c.quote_volume) <= scale(v.quote_volume) THEN v.quote_volume = c.quote_volume
         ELSE abs(v.quote_volume - c.quote_volume) <= greatest(c.trades, 1) * power(10::numeric, -scale(v.quote_volume))
    END"""


def compare(comparable: dict[str, object]) -> str:
    """The statement that sets ``venue_agrees`` of complete candles whose venue candle is closed; empty when no field
    is comparable. Answers what it set, with both candles.
    """
    tests = []
    for name in FIELDS:
        how = comparable.get(name)
        if how == "raw" and name in _RAW:
            tests.append(f"v.{name} IS NOT DISTINCT FROM {_RAW[name]}")
        elif how is True and name == "quote_volume":
            tests.append(_SAME_TURNOVER)
        elif how is True:
            tests.append(f"v.{name} IS NOT DISTINCT FROM c.{name}")
    if not tests:
        return ""
    return _COMPARE.format(wide=_WIDE, tests=" AND ".join(tests))


_BOTH = """
SELECT {fields}
FROM candles c JOIN venue_candles v USING (instrument_id, interval, open_time)
WHERE c.instrument_id = $1 AND c.interval = $2 AND c.open_time = $3
"""
BOTH = _BOTH.format(fields=", ".join(f"c.{name} AS ours_{name}, v.{name} AS venue_{name}" for name in FIELDS))
"""Both candles, for the log."""

UNFINISHED = """
SELECT instrument_id, open_time AS lo, open_time AS hi FROM candles
WHERE interval = '1m' AND NOT complete AND instrument_id = ANY($1::int[])
UNION ALL
SELECT i, (SELECT max(open_time) FROM candles WHERE instrument_id = i AND interval = '1m') - interval '3 hours',
       (SELECT max(open_time) FROM candles WHERE instrument_id = i AND interval = '1m')
FROM unnest($1::int[]) AS i
"""
"""What may have been left undone by a process that ended: every 1m candle not complete, and the last three hours."""

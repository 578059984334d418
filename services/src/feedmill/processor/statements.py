"""The SQL that stores rows. Every statement is idempotent by the natural keys of its tables."""

from __future__ import annotations

OWN = 1 << 20
"""First revision of a gap row that the processor keeps itself (see ``losses``)."""
RESTORED = OWN << 1
"""The same of rows that a restore from a backup opened or took over: the distributor may have forgotten them, or never
have missed what they name."""

_MS = "'epoch'::timestamptz + ({0}::bigint / 1000000) * interval '1 millisecond'"
"""Exchange ns -> timestamptz cut to ms."""

_MOVED = """
moved AS (
    UPDATE applied SET n = $6, commit_id = $7, stream_id = $8, updated_at = now()
    WHERE shard = $4 AND commit_id = $5 RETURNING 1
),"""
_IF_MOVED = "WHERE EXISTS (SELECT FROM moved)"

_BUSY = """
WITH {moved}
new_trades AS (
    INSERT INTO trades (instrument_id, trade_id, time, price, size, side, exchange_ns, receive_ns, flags,
                        first_id, last_id, venue_id)
    SELECT a[1]::int, a[2]::bigint, {trade_time}, a[3]::numeric, a[4]::numeric, a[5]::smallint, a[6]::bigint,
           a[7]::bigint, a[8]::smallint, a[9]::bigint, a[10]::bigint, a[11]
    FROM (SELECT string_to_array(line, E'\\t', '') AS a FROM string_to_table($1, E'\\n') AS line OFFSET 0) AS lines
    {gate}
    ON CONFLICT DO NOTHING
    RETURNING instrument_id, trade_id, time, price, size
),
minutes AS (
    SELECT instrument_id, date_bin('1 minute', time, 'epoch') AS open_time,
           array_agg(price ORDER BY trade_id) AS prices,
           max(price) AS high, min(price) AS low, sum(size) AS volume, sum(price * size) AS quote_volume,
           count(*) AS trades, min(trade_id) AS first_id, max(trade_id) AS last_id
    FROM new_trades GROUP BY 1, 2
),
touched AS (
    INSERT INTO candles AS c (instrument_id, interval, open_time, open, high, low, close, volume, quote_volume,
                              trades, first_id, last_id, complete, venue_agrees)
    SELECT instrument_id, '1m', open_time, prices[1], high, low, prices[trades], volume, quote_volume,
           trades, first_id, last_id, false, NULL
    FROM minutes ORDER BY instrument_id, open_time
    ON CONFLICT (instrument_id, interval, open_time) DO UPDATE SET
        open = CASE WHEN c.first_id < excluded.first_id THEN c.open ELSE excluded.open END,
        high = CASE WHEN c.trades = 0 THEN excluded.high ELSE greatest(c.high, excluded.high) END,
        low = CASE WHEN c.trades = 0 THEN excluded.low ELSE least(c.low, excluded.low) END,
        close = CASE WHEN c.last_id > excluded.last_id THEN c.close ELSE excluded.close END,
        volume = c.volume + excluded.volume,
        quote_volume = c.quote_volume + excluded.quote_volume,
        trades = c.trades + excluded.trades,
        first_id = least(c.first_id, excluded.first_id),
        last_id = greatest(c.last_id, excluded.last_id),
        complete = false,
        venue_agrees = NULL
    RETURNING c.instrument_id, c.open_time
),
new_tickers AS (
    INSERT INTO tickers (instrument_id, day, seq, bid, bid_size, ask, ask_size, exchange_ns, receive_ns, flags)
    SELECT a[1]::int, DATE '1970-01-01' + (coalesce(a[7], a[8])::bigint / 86400000000000)::int, a[2]::bigint,
           a[3]::numeric, a[4]::numeric, a[5]::numeric, a[6]::numeric, a[7]::bigint, a[8]::bigint, a[9]::smallint
    FROM (SELECT string_to_array(line, E'\\t', '') AS a FROM string_to_table($2, E'\\n') AS line OFFSET 0) AS lines
    {gate}
    ON CONFLICT DO NOTHING
    RETURNING 1
),
new_books AS (
    INSERT INTO book_snapshots (instrument_id, time, seq, exchange_ns, receive_ns, bid_prices, bid_sizes,
                                ask_prices, ask_sizes)
    SELECT a[1]::int, {book_time}, a[3]::bigint, a[4]::bigint, a[5]::bigint, a[6]::numeric[], a[7]::numeric[],
           a[8]::numeric[], a[9]::numeric[]
    FROM (SELECT string_to_array(line, E'\\t') AS a FROM string_to_table($3, E'\\n') AS line OFFSET 0) AS lines
    {gate}
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT {applied} AS applied, (SELECT count(*) FROM new_trades) AS trades, (SELECT count(*) FROM new_tickers) AS tickers,
       (SELECT count(*) FROM new_books) AS books, array_agg(instrument_id) AS instruments,
       array_agg(extract(epoch FROM open_time)::bigint) AS minutes
FROM touched
"""


def _busy(*, moving: bool) -> str:
    return _BUSY.format(
        moved=_MOVED if moving else "",
        gate=_IF_MOVED if moving else "",
        applied="EXISTS (SELECT FROM moved)" if moving else "true",
        trade_time=_MS.format("a[6]"),
        book_time=_MS.format("a[2]"),
    )


COMMIT_BUSY = _busy(moving=True)
"""Move the position ($4 shard, $5 its commit before, $6 n, $7 commit, $8 entry) and, only if it was there, store
trades ($1), tickers ($2), book snapshots ($3). One statement: one round trip, and a transaction by itself.
Answers: applied, rows really inserted by table, 1m candles touched (instruments, minutes as epoch seconds)."""

STORE_BUSY = _busy(moving=False)
"""The same without a position, for parts of a transaction."""

MOVE = """
UPDATE applied SET n = $3, commit_id = $4, stream_id = $5, updated_at = now() WHERE shard = $1 AND commit_id = $2
"""
POSITION = "SELECT n, commit_id, stream_id FROM applied WHERE shard = $1"
FIRST_POSITION = """
INSERT INTO applied (shard, n, commit_id, stream_id) VALUES ($1, 0, '', '0-0') ON CONFLICT DO NOTHING
"""

CANDLES = """
INSERT INTO venue_candles AS v (instrument_id, interval, open_time, open, high, low, close, volume, quote_volume,
                                trades, first_id, last_id, closed, exchange_ns, receive_ns)
SELECT i, t, 'epoch'::timestamptz + o * interval '1 microsecond', p1::numeric, p2::numeric, p3::numeric, p4::numeric,
       vol::numeric, nullif(q, '')::numeric, nullif(n, -1), nullif(f, -1), nullif(l, -1), c, e, r
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bool[], $14::bigint[], $15::bigint[])
     AS u(i, t, o, p1, p2, p3, p4, vol, q, n, f, l, c, e, r)
ORDER BY 1, 2, 3
ON CONFLICT (instrument_id, interval, open_time) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume, quote_volume = excluded.quote_volume, trades = excluded.trades,
    first_id = excluded.first_id, last_id = excluded.last_id, closed = excluded.closed,
    exchange_ns = excluded.exchange_ns, receive_ns = excluded.receive_ns
WHERE (excluded.closed, excluded.exchange_ns, excluded.receive_ns) > (v.closed, v.exchange_ns, v.receive_ns)
"""

GAPS = f"""
INSERT INTO gaps AS g (id, shard, instrument_id, channel, cause, state, from_seq, to_seq, missing, from_ns, to_ns,
                       repaired_by, revision, detected_ns)
SELECT id, $1, i, ch, ca, st, nullif(fs, -1), nullif(ts, -1), m::int8multirange, nullif(fn, 0), nullif(tn, 0), rb, rv, d
FROM unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::text[],
            $10::bigint[], $11::bigint[], $12::text[], $13::int[], $14::bigint[])
     AS u(id, i, ch, ca, st, fs, ts, m, fn, tn, rb, rv, d)
ORDER BY id
ON CONFLICT (id) DO UPDATE SET
    instrument_id = excluded.instrument_id, channel = excluded.channel, cause = excluded.cause, state = excluded.state,
    from_seq = excluded.from_seq, to_seq = excluded.to_seq, missing = excluded.missing, from_ns = excluded.from_ns,
    to_ns = excluded.to_ns, repaired_by = excluded.repaired_by, revision = excluded.revision,
    detected_ns = excluded.detected_ns
WHERE excluded.revision > g.revision
   OR (g.channel = 'Trades' AND g.revision < {OWN} AND excluded.to_seq > g.to_seq)
"""  # noqa: S608
"""The extent of a row of trades never changes, so one that goes further was told by a chain that had forgotten the one
that is there."""

LETTERS = """
INSERT INTO dead_letters (shard, session, batch, idx, conn, receive_ns, reason, detail, code_version, payload)
SELECT $1, s, b, x, c, r, re, de, cv, p
FROM unnest($2::text[], $3::bigint[], $4::int[], $5::int[], $6::bigint[], $7::text[], $8::text[], $9::text[],
            $10::bytea[]) AS u(s, b, x, c, r, re, de, cv, p)
ON CONFLICT DO NOTHING
"""

_CONTENT = (
    *("type", "base", "quote", "settle", "status", "tick", "lot"),
    *("contract_size", "expiry", "strike", "option_type"),
)

NATIVES = """
UPDATE instruments i SET native = u.native FROM unnest($1::int[], $2::text[], $3::bigint[]) AS u(id, native, ns)
WHERE i.id = u.id AND i.native <> u.native AND NOT EXISTS (
    SELECT FROM instrument_versions v WHERE v.instrument_id = u.id
    AND v.valid_from > 'epoch'::timestamptz + (u.ns / 1000) * interval '1 microsecond'
)
"""
"""The names the venue uses; one stated before the version known now (a stream read again) changes nothing."""

_VERSION = """
WITH stated AS (
    SELECT $1::int AS instrument_id,
           'epoch'::timestamptz + ($2::bigint / 1000) * interval '1 microsecond' AS valid_from,
           $3::text AS type, $4::text AS base, $5::text AS quote, $6::text AS settle, $7::text AS status,
           nullif($8::text, '')::numeric AS tick, nullif($9::text, '')::numeric AS lot,
           nullif($10::text, '')::numeric AS contract_size,
           'epoch'::timestamptz + (nullif($11::bigint, 0) / 1000) * interval '1 microsecond' AS expiry,
           nullif($12::text, '')::numeric AS strike, nullif($13::text, '') AS option_type
),
known AS (
    SELECT * FROM instrument_versions WHERE instrument_id = $1 ORDER BY valid_from DESC LIMIT 1
),
news AS (
    SELECT s.* FROM stated s LEFT JOIN known k ON true
    WHERE k.instrument_id IS NULL
       OR (s.valid_from > k.valid_from
           AND ({stated})
               IS DISTINCT FROM ({known}))
),
ended AS (
    UPDATE instrument_versions v SET valid_to = n.valid_from FROM news n, known k
    WHERE v.instrument_id = k.instrument_id AND v.valid_from = k.valid_from
)
INSERT INTO instrument_versions (instrument_id, valid_from, {content})
SELECT instrument_id, valid_from, {content} FROM news
ON CONFLICT DO NOTHING
"""
VERSION = _VERSION.format(
    content=", ".join(_CONTENT),
    stated=", ".join(f"s.{name}" for name in _CONTENT),
    known=", ".join(f"k.{name}" for name in _CONTENT),
)
"""Store what the venue says of an instrument if it differs from what it said before; older news change nothing."""

INSTRUMENTS = "SELECT id, symbol FROM instruments WHERE exchange = $1 AND market = $2"
EXPIRED = """
SELECT DISTINCT instrument_id AS id FROM instrument_versions
WHERE instrument_id = ANY($1::int[]) AND valid_to IS NULL AND expiry <= now()
"""
NEW_INSTRUMENT = """
INSERT INTO instruments (exchange, market, symbol, native) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""

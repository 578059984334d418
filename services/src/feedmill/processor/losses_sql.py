"""The SQL of losses. Rows of the processor's own have a revision from OWN on (see ``losses``)."""

from __future__ import annotations

from feedmill.processor.statements import OWN

LOAD = """
SELECT g.id, i.symbol, g.channel, coalesce(g.from_seq, -1) AS from_seq,
       g.state = 'open' AND g.to_seq IS NULL AS waits
FROM gaps g JOIN instruments i ON i.id = g.instrument_id WHERE g.shard = $1 AND g.revision >= $2
"""

SHARD = """
INSERT INTO gaps (id, shard, instrument_id, channel, cause, state, from_seq, to_seq, missing, from_ns, to_ns,
                  repaired_by, revision, detected_ns)
SELECT CASE WHEN EXISTS (SELECT FROM gaps WHERE id = $1) THEN $8 ELSE $1 END, $2, NULL, 'events', 'redis_lost',
       'closed', $3::bigint, nullif($4::bigint, -1),
       CASE WHEN $4 < 0 THEN '{}' ELSE int8multirange(int8range($3, $4, '[]')) END,
       nullif($5::bigint, 0), $6::bigint, '', $9::int, $7::bigint
ON CONFLICT DO NOTHING
"""
"""Numbers come again when a chain begins anew: a second loss after the same number has the commit's id in its name."""

RESTORED_SHARD = """
SELECT id FROM gaps WHERE shard = $1 AND channel = 'events' AND cause = 'restore' AND state = 'open'
ORDER BY detected_ns DESC LIMIT 1
"""
END_RESTORED = """
UPDATE gaps SET
    state = 'closed', to_seq = nullif($2::bigint, -1), to_ns = greatest(from_ns, $3::bigint), revision = revision + 1,
    missing = CASE WHEN $2::bigint < 0 THEN '{}' ELSE int8multirange(int8range(from_seq, $2::bigint, '[]')) END
WHERE id = $1
"""
REMOVE_RESTORED = """
DELETE FROM gaps WHERE shard = $1 AND cause = 'restore' AND state = 'open' AND to_seq IS NULL
"""

LAST_TRADES = """
WITH near AS (
    SELECT i, l.time AS last_time, t.trade_id, t.time, t.receive_ns
    FROM unnest($1::int[]) AS i
    CROSS JOIN LATERAL (SELECT time FROM trades WHERE instrument_id = i ORDER BY time DESC LIMIT 1) l
    CROSS JOIN LATERAL (SELECT trade_id, time, receive_ns FROM trades
                        WHERE instrument_id = i AND time >= l.time - 2 * $2::interval) t
),
seen AS (
    SELECT i, min(trade_id) FILTER (WHERE time >= last_time - $2) AS low, max(trade_id) AS last,
           range_agg(int8range(trade_id, trade_id, '[]')) AS stored, max(receive_ns) AS receive_ns
    FROM near GROUP BY 1
),
left_out AS (
    SELECT i, last, receive_ns, int8multirange(int8range(low, last, '[]')) - stored - coalesce(
               (SELECT range_agg(r) FROM gaps g, unnest(g.missing) AS r
                WHERE g.instrument_id = i AND g.channel = 'Trades'), '{}') AS holes
    FROM seen
)
SELECT i AS instrument_id, last, receive_ns, holes::text AS holes, coalesce(lower(holes), last + 1) AS begin
FROM left_out
"""
"""The last trade stored, and numbers left out shortly before it that no gap row names ($2: how shortly)."""

LAST_TICKERS = """
SELECT i, q.seq, q.receive_ns FROM unnest($1::int[]) AS i
CROSS JOIN LATERAL (SELECT seq, receive_ns FROM tickers WHERE instrument_id = i ORDER BY seq DESC LIMIT 1) q
"""
LAST_TICKERS_BY_TIME = """
SELECT instrument_id, max(exchange_ns) / 1000000 AS last, max(receive_ns) AS receive_ns
FROM tickers WHERE instrument_id = ANY($1::int[]) AND day >= $2::date AND exchange_ns IS NOT NULL GROUP BY 1
"""

OPEN = """
INSERT INTO gaps AS g (id, shard, instrument_id, channel, cause, state, from_seq, to_seq, missing, from_ns, to_ns,
                       repaired_by, revision, detected_ns)
SELECT id, $1, i, ch, $10::text, 'open', fs, NULL, m::int8multirange, fn, NULL, '', $9::int, $8::bigint
FROM unnest($2::text[], $3::int[], $4::text[], $5::bigint[], $6::text[], $7::bigint[]) AS u(id, i, ch, fs, m, fn)
ORDER BY id
ON CONFLICT (id) DO UPDATE SET
    state = 'open', to_seq = NULL, to_ns = NULL, missing = g.missing + excluded.missing,
    revision = greatest(g.revision + 1, excluded.revision)
"""
"""One that is there already is a gap of the distributor that was open when the loss came, and becomes ours."""

ADOPT_BOOKS = """
UPDATE gaps SET revision = greatest(revision + 1, $3::int)
WHERE shard = $1 AND instrument_id = ANY($2::int[]) AND channel = 'Book' AND state = 'open' AND to_seq IS NULL
RETURNING id, instrument_id, coalesce(from_seq, -1) AS from_seq
"""
"""The distributor of the new chain knows nothing of them."""

SETTLE_NUMBERS = """
WITH extent AS (
    SELECT g.id, u.receive_ns,
           CASE WHEN first > g.from_seq THEN int8multirange(int8range(g.from_seq, first)) ELSE '{}' END - coalesce((
               SELECT range_agg(int8range(t.trade_id, t.trade_id, '[]')) FROM trades t
               WHERE t.instrument_id = g.instrument_id AND t.trade_id >= g.from_seq AND t.trade_id < first
               AND t.time >= coalesce((SELECT time FROM trades WHERE instrument_id = g.instrument_id
                                       AND trade_id < g.from_seq ORDER BY time DESC LIMIT 1) - interval '1 minute',
                                      '-infinity')
               AND t.time <= 'epoch'::timestamptz + exchange_ns / 1000 * interval '1 microsecond' + interval '1 minute'
           ), '{}') - coalesce((
               SELECT range_agg(r) FROM gaps o, unnest(o.missing) AS r
               WHERE o.instrument_id = g.instrument_id AND o.channel = g.channel AND o.id <> g.id
           ), '{}') AS missing
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS u(id, first, exchange_ns, receive_ns)
    JOIN gaps g USING (id)
)
UPDATE gaps g SET missing = e.missing, to_seq = coalesce(upper(e.missing) - 1, g.from_seq), to_ns = e.receive_ns,
                  revision = g.revision + 1
FROM extent e WHERE g.id = e.id
"""
"""From where the row begins to the first trade ($2): numbers neither stored nor named by another row."""
REMOVE_EMPTY = "DELETE FROM gaps WHERE id = ANY($1::text[]) AND isempty(missing)"

TO_REPAIR = """
SELECT g.id, g.shard, i.symbol, g.from_ns, g.to_ns, lower(r) AS low, upper(r) - 1 AS high, g.revision, g.missing,
       g.cause
FROM gaps g JOIN instruments i ON i.id = g.instrument_id
CROSS JOIN LATERAL (SELECT r FROM unnest(g.missing) AS r LIMIT 1) AS first
WHERE g.state = 'open' AND g.channel = $3 AND g.shard = ANY($1::text[]) AND g.revision >= $2 AND g.to_seq IS NOT NULL
ORDER BY g.detected_ns, g.id LIMIT 200
"""
"""Rows of the processor's own that have their extent, with the first numbers they still miss."""

SETTLE_EXTENT = """
UPDATE gaps g SET state = 'closed', to_seq = u.first, to_ns = u.receive_ns, revision = g.revision + 1
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS u(id, first, exchange_ns, receive_ns)
WHERE g.id = u.id
"""
REMOVE = "DELETE FROM gaps WHERE id = ANY($1::text[])"

_CAME = "unnest($2::int[], $3::bigint[], $4::bigint[]) AS u(i, number, exchange_ns)"

FILL_NUMBERS = f"""
WITH came AS (
    SELECT i, range_agg(int8range(number, number, '[]')) AS numbers FROM {_CAME}
    WHERE EXISTS (SELECT FROM trades t WHERE t.instrument_id = i AND t.trade_id = number
                  AND t.time = 'epoch'::timestamptz + exchange_ns / 1000000 * interval '1 millisecond')
    GROUP BY 1
)
UPDATE gaps g SET missing = g.missing - c.numbers,
    revision = g.revision + CASE WHEN g.revision < {OWN} THEN 0 ELSE 1 END,
    state = CASE WHEN g.to_seq IS NOT NULL AND isempty(g.missing - c.numbers) THEN 'closed' ELSE g.state END,
    repaired_by = CASE WHEN g.to_seq IS NOT NULL AND isempty(g.missing - c.numbers) THEN 'late' ELSE '' END
FROM came c
WHERE g.shard = $1 AND g.instrument_id = c.i AND g.channel = 'Trades' AND g.revision >= $5 AND g.missing && c.numbers
"""  # noqa: S608
FILL_EXTENT = f"""
UPDATE gaps g SET to_seq = c.number, revision = g.revision + 1
FROM (
    SELECT o.id, min(number) AS number FROM {_CAME} JOIN gaps o ON o.instrument_id = i
    WHERE o.shard = $1 AND o.channel = 'Ticker' AND o.revision >= $5 AND number > o.from_seq AND number < o.to_seq
    GROUP BY 1
) c WHERE g.id = c.id
"""  # noqa: S608

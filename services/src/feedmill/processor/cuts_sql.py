"""The SQL that cuts gap rows to what is not stored (see ``cuts``)."""

from __future__ import annotations

STORED_TRADES = """
SELECT u.name, u.missing::int8multirange - s.numbers AS missing
FROM unnest($1::text[], $2::int[], $3::text[], $4::bigint[], $5::bigint[]) AS u(name, i, missing, from_us, to_us)
CROSS JOIN LATERAL (
    SELECT range_agg(int8range(trade_id, trade_id, '[]')) AS numbers FROM trades
    WHERE instrument_id = u.i AND trade_id <@ u.missing::int8multirange
    AND time >= 'epoch'::timestamptz + u.from_us * interval '1 microsecond'
    AND time <= 'epoch'::timestamptz + u.to_us * interval '1 microsecond'
) s
WHERE s.numbers IS NOT NULL
"""
"""What is left of rows of trades of which some are stored."""

_WITHIN = "unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[]) AS u(name, i, lo, hi, from_us)"
_SINCE = "('epoch'::timestamptz + u.from_us * interval '1 microsecond')"

LAST_TICKERS = f"""
SELECT u.name, q.seq AS number, q.receive_ns FROM {_WITHIN}
CROSS JOIN LATERAL (
    SELECT seq, receive_ns FROM tickers WHERE instrument_id = u.i AND seq > u.lo AND seq < u.hi
    AND day >= ({_SINCE} AT TIME ZONE 'UTC')::date ORDER BY seq DESC LIMIT 1
) q
"""  # noqa: S608

LAST_TICKERS_BY_TIME = """
SELECT u.name, max(t.exchange_ns) / 1000000 AS number, max(t.receive_ns) AS receive_ns
FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::date[]) AS u(name, i, low, high, day)
JOIN tickers t ON t.instrument_id = u.i AND t.day >= u.day AND t.exchange_ns BETWEEN u.low AND u.high
GROUP BY 1
"""

LAST_BOOKS = f"""
SELECT u.name, b.seq AS number, b.receive_ns FROM {_WITHIN}
CROSS JOIN LATERAL (
    SELECT seq, receive_ns FROM book_snapshots WHERE instrument_id = u.i AND seq > u.lo AND seq < u.hi
    AND time >= {_SINCE} ORDER BY time DESC LIMIT 1
) b
"""  # noqa: S608

END_FORGOTTEN = """
DELETE FROM gaps g USING unnest($1::text[], $2::int[], $3::text[], $4::bigint[], $5::bigint[]) AS u(id, i, ch, lo, hi)
WHERE g.instrument_id = u.i AND g.channel = u.ch AND g.state = 'open' AND g.to_seq IS NULL AND g.id <> u.id
AND g.from_seq > u.lo AND g.from_seq < u.hi AND g.revision < $6
"""

TAKEN = """
SELECT g.id FROM unnest($1::text[], $2::bigint[], $3::int[]) AS u(id, number, revision) JOIN gaps g USING (id)
WHERE g.state = 'closed' AND g.to_seq > g.from_seq AND g.to_seq <= u.number AND g.revision >= u.revision
"""
"""Rows that end before the begin found, and that the new one would not replace."""

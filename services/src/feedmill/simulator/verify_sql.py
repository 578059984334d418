"""SQL of verify. ``l_*`` hold the ledger as loaded, ``e_*`` with instrument ids, ``m_*`` what was emitted and is not
stored; ``ours`` holds the venue's instruments."""

from __future__ import annotations

TABLES = """
DROP TABLE IF EXISTS ours, l_trades, l_tickers, l_candles, l_bad, e_trades, e_tickers, m_trades, m_tickers, r_candles;
CREATE TEMP TABLE l_trades (symbol text, id bigint, price numeric, size numeric, side smallint, exchange_ns bigint,
                            first_id bigint, last_id bigint);
CREATE TEMP TABLE l_tickers (symbol text, seq bigint, bid numeric, bid_size numeric, ask numeric, ask_size numeric,
                             exchange_ns bigint);
CREATE TEMP TABLE l_candles (symbol text, interval text, open_ns bigint, open numeric, high numeric, low numeric,
                             close numeric, volume numeric, quote_volume numeric, trades bigint, first_id bigint,
                             last_id bigint);
CREATE TEMP TABLE l_bad (symbol text, id bigint);
"""

OURS = """
CREATE TEMP TABLE ours AS SELECT id, symbol FROM instruments WHERE exchange = '{exchange}' AND market = '{market}'
"""

EMITTED = {
    "trades": """
        CREATE TEMP TABLE e_trades AS SELECT i.id AS instrument_id, l.*
        FROM l_trades l LEFT JOIN ours i USING (symbol);
        CREATE INDEX ON e_trades (instrument_id, id);
        ANALYZE e_trades
    """,
    "tickers": """
        CREATE TEMP TABLE e_tickers AS SELECT DISTINCT ON (l.symbol, l.seq) i.id AS instrument_id, l.*
        FROM l_tickers l LEFT JOIN ours i USING (symbol)
        ORDER BY l.symbol, l.seq;
        CREATE INDEX ON e_tickers (instrument_id, seq);
        ANALYZE e_tickers
    """,
}

MISSING = {
    "trades": """
        CREATE TEMP TABLE m_trades AS SELECT e.instrument_id, e.symbol, e.id AS seq, e.exchange_ns FROM e_trades e
        WHERE NOT EXISTS (SELECT FROM trades t WHERE t.instrument_id = e.instrument_id AND t.trade_id = e.id)
    """,
    "tickers": """
        CREATE TEMP TABLE m_tickers AS SELECT e.instrument_id, e.symbol, e.seq, e.exchange_ns FROM e_tickers e
        WHERE NOT EXISTS (SELECT FROM tickers t WHERE t.instrument_id = e.instrument_id AND t.seq = e.seq)
    """,
}

STORED = {
    "trades": """
        SELECT count(*), count(*) - count(DISTINCT (instrument_id, trade_id))
        FROM trades WHERE instrument_id IN (SELECT id FROM ours)""",
    "tickers": """
        SELECT count(*), count(*) - count(DISTINCT (instrument_id, seq))
        FROM tickers WHERE instrument_id IN (SELECT id FROM ours)""",
}

PHANTOM = {
    "trades": """
        SELECT i.symbol, t.trade_id FROM trades t JOIN ours i ON i.id = t.instrument_id
        WHERE NOT EXISTS (SELECT FROM e_trades e WHERE e.instrument_id = t.instrument_id AND e.id = t.trade_id)""",
    "tickers": """
        SELECT i.symbol, t.seq FROM tickers t JOIN ours i ON i.id = t.instrument_id
        WHERE NOT EXISTS (SELECT FROM e_tickers e WHERE e.instrument_id = t.instrument_id AND e.seq = t.seq)""",
}

WRONG = {
    "trades": """
        SELECT e.symbol, e.id FROM e_trades e JOIN trades t ON t.instrument_id = e.instrument_id AND t.trade_id = e.id
        WHERE (t.price, t.size, t.side, t.exchange_ns, t.first_id, t.last_id, t.time)
              IS DISTINCT FROM
              (e.price, e.size, e.side, e.exchange_ns, e.first_id, e.last_id,
               timestamptz 'epoch' + e.exchange_ns / 1000000 * interval '1 millisecond')""",
    "tickers": """
        SELECT e.symbol, e.seq FROM e_tickers e JOIN tickers t ON t.instrument_id = e.instrument_id AND t.seq = e.seq
        WHERE (t.bid, t.bid_size, t.ask, t.ask_size, coalesce(t.exchange_ns, 0))
              IS DISTINCT FROM (e.bid, e.bid_size, e.ask, e.ask_size, e.exchange_ns)""",
}

# Subscribed and lost before any event: no number is known before it, so the gap begins at a time.
_NUMBERED = """
    (g.missing @> m.seq OR coalesce(g.from_seq, -1) < 0 AND m.exchange_ns >= g.from_ns
     AND m.seq <= CASE WHEN coalesce(g.to_seq, -1) < 0 THEN 9223372036854775807 ELSE g.to_seq END)"""
_BY_SEQ = """
    m.seq > CASE WHEN coalesce(g.from_seq, -1) < 0 THEN -9223372036854775808 ELSE g.from_seq END
    AND m.seq < CASE WHEN coalesce(g.to_seq, -1) < 0 THEN 9223372036854775807 ELSE g.to_seq END"""
_BY_TIME = """
    m.exchange_ns / 1000000 >= coalesce(g.from_seq, -1)
    AND m.exchange_ns / 1000000 <= CASE WHEN coalesce(g.to_seq, -1) < 0 THEN 9223372036854775807 ELSE g.to_seq END"""
# One without a beginning says nothing: it would excuse every loss there ever was. Those of accounts excuse no feed.
_WHOLE_SHARD = """
    EXISTS (SELECT FROM gaps g WHERE g.instrument_id IS NULL AND g.channel <> 'Account' AND m.exchange_ns > 0
            AND g.from_ns > 0 AND m.exchange_ns >= g.from_ns
            AND (coalesce(g.to_ns, 0) = 0 OR m.exchange_ns <= g.to_ns))"""


def covered(kind: str, *, by_time: bool) -> str:
    """Rows missing and not covered by a gap row: (symbol, seq, before the first stored, after the last stored)."""
    inside = _NUMBERED if kind == "trades" else _BY_TIME if by_time else _BY_SEQ
    channel = "Trades" if kind == "trades" else "Ticker"
    order = "exchange_ns" if by_time and kind == "tickers" else "seq"
    stored = {"trades": "trade_id", "tickers": order}[kind]
    return f"""
        SELECT m.symbol, m.seq, coalesce(m.{order} < s.low, true), coalesce(m.{order} > s.high, true)
        FROM m_{kind} m LEFT JOIN (
            SELECT instrument_id, min({stored}) AS low, max({stored}) AS high FROM {kind} GROUP BY 1
        ) s ON s.instrument_id = m.instrument_id
        WHERE NOT EXISTS (
            SELECT FROM gaps g WHERE g.instrument_id = m.instrument_id AND g.channel = '{channel}' AND {inside}
        ) AND NOT {_WHOLE_SHARD}
        ORDER BY m.symbol, m.seq"""  # noqa: S608


GAPS_WRONG = """
WITH said AS (
    SELECT g.instrument_id, range_agg(r) AS numbers FROM gaps g, unnest(g.missing) AS r
    WHERE g.channel = 'Trades' AND g.instrument_id IN (SELECT id FROM ours) GROUP BY 1
), sizes AS (
    SELECT s.instrument_id, (SELECT sum(upper(r) - lower(r)) FROM unnest(s.numbers) AS r) AS said,
           (SELECT count(*) FROM m_trades m WHERE m.instrument_id = s.instrument_id AND s.numbers @> m.seq) AS missing,
           (SELECT count(*) FROM l_bad b JOIN ours i ON i.symbol = b.symbol AND i.id = s.instrument_id
            WHERE s.numbers @> b.id) AS unreadable
    FROM said s
)
SELECT coalesce(sum(said - missing - unreadable), 0)::bigint FROM sizes"""


def tickers_in_gaps(*, by_time: bool) -> str:
    """Count of stored tickers that lie inside a gap row, which says that nothing between its two ends was seen."""
    order = "t.exchange_ns / 1000000" if by_time else "t.seq"
    return f"""
        SELECT count(*) FROM gaps g JOIN tickers t ON t.instrument_id = g.instrument_id
        WHERE g.channel = 'Ticker' AND g.instrument_id IN (SELECT id FROM ours)
        AND {order} > CASE WHEN coalesce(g.from_seq, -1) < 0 THEN -9223372036854775808 ELSE g.from_seq END
        AND {order} < CASE WHEN coalesce(g.to_seq, -1) < 0 THEN 9223372036854775807 ELSE g.to_seq END"""  # noqa: S608


CAUSES = """
SELECT channel, cause, count(*) FROM gaps
WHERE (instrument_id IN (SELECT id FROM ours) OR instrument_id IS NULL) AND channel <> 'Account'
GROUP BY 1, 2 ORDER BY 1, 2"""

BOOKS = """
SELECT i.symbol, b.seq, b.time::text AS slot, b.bid_prices, b.bid_sizes, b.ask_prices, b.ask_sizes
FROM book_snapshots b JOIN ours i ON i.id = b.instrument_id"""

RECOMPUTE = """
CREATE TEMP TABLE r_candles AS
SELECT e.instrument_id, timestamptz 'epoch' + e.exchange_ns / 60000000000 * interval '1 minute' AS open_time,
       (array_agg(e.price ORDER BY e.id))[1] AS open, max(e.price) AS high, min(e.price) AS low,
       (array_agg(e.price ORDER BY e.id DESC))[1] AS close,
       sum(e.size) AS volume, sum(e.price * e.size) AS quote_volume,
       count(*) AS trades, min(e.id) AS first_id, max(e.id) AS last_id
FROM e_trades e
WHERE e.instrument_id IS NOT NULL
AND NOT EXISTS (SELECT FROM m_trades m WHERE m.instrument_id = e.instrument_id AND m.seq = e.id)
GROUP BY 1, 2
"""

CANDLES = """
WITH c AS (SELECT * FROM candles WHERE interval = '1m' AND instrument_id IN (SELECT id FROM ours)),
holes AS (
    SELECT DISTINCT instrument_id, timestamptz 'epoch' + exchange_ns / 60000000000 * interval '1 minute' AS open_time
    FROM m_trades
)
SELECT count(*) FILTER (WHERE c.instrument_id IS NOT NULL) AS stored,
       count(*) FILTER (WHERE c.complete) AS complete,
       count(*) FILTER (WHERE c.instrument_id IS NOT NULL AND (
           (c.trades > 0 OR r.trades IS NOT NULL) AND
           (c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trades, c.first_id, c.last_id)
           IS DISTINCT FROM
           (r.open, r.high, r.low, r.close, r.volume, r.quote_volume, r.trades, r.first_id, r.last_id)
           OR c.complete AND EXISTS (SELECT FROM holes h WHERE h.instrument_id = c.instrument_id
                                     AND h.open_time = c.open_time))) AS wrong,
       count(*) FILTER (WHERE c.instrument_id IS NULL) AS missing,
       count(*) FILTER (WHERE c.complete AND c.venue_agrees) AS agree,
       count(*) FILTER (WHERE c.complete AND NOT c.venue_agrees) AS disagree
FROM c FULL JOIN r_candles r ON r.instrument_id = c.instrument_id AND r.open_time = c.open_time"""

VENUE_CANDLES = """
SELECT count(*) AS emitted, count(v.instrument_id) AS stored,
       count(*) FILTER (WHERE v.closed AND
           (v.open, v.high, v.low, v.close, v.volume, v.quote_volume, coalesce(v.trades, -1),
            coalesce(v.first_id, -1), coalesce(v.last_id, -1))
           IS DISTINCT FROM
           (l.open, l.high, l.low, l.close, l.volume, l.quote_volume, l.trades, l.first_id, l.last_id)) AS wrong
FROM l_candles l
LEFT JOIN ours i ON i.symbol = l.symbol
LEFT JOIN venue_candles v ON v.instrument_id = i.id AND v.interval = l.interval
     AND v.open_time = timestamptz 'epoch' + l.open_ns / 1000000 * interval '1 millisecond'"""

DEAD_LETTERS = "SELECT count(*) FROM dead_letters"

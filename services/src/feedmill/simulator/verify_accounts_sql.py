"""SQL of comparing accounts. ``a_*`` hold the ledger as loaded, each line with its number; ``mine`` the accounts that
the database has under the names of the ledger; ``f_*`` the ledger's rows of those, as they should be stored."""

# ruff: noqa: S608 (put together from constants of this file only)

from __future__ import annotations

TABLES = """
DROP TABLE IF EXISTS a_orders, a_fills, a_balances, a_positions, a_transfers, mine, f_orders, f_fills, f_balances,
    f_positions, f_transfers, lost_transfers;
CREATE TEMP TABLE a_orders (line bigint, account text, symbol text, order_id text, client_id text, side text, type text,
    tif text, price numeric, size numeric, filled numeric, quote numeric, status text, execution text, ns bigint);
CREATE TEMP TABLE a_fills (line bigint, account text, symbol text, trade_id text, order_id text, side text,
    price numeric, size numeric, fee numeric, fee_asset text, maker int, realised numeric, ns bigint);
CREATE TEMP TABLE a_balances (line bigint, account text, asset text, free numeric, locked numeric, cause text,
    ns bigint);
CREATE TEMP TABLE a_positions (line bigint, account text, symbol text, size numeric, entry numeric, realised numeric,
    ns bigint);
CREATE TEMP TABLE a_transfers (line bigint, account text, id text, asset text, amount numeric, ns bigint)
"""

MINE = """
CREATE TEMP TABLE mine AS SELECT id AS account_id, name AS account, namespace || '.@' || name || '.0' AS shard
FROM accounts WHERE exchange = $$%s$$ AND market = $$%s$$ AND removed_at IS NULL
AND name IN (SELECT account FROM a_balances)
"""
ACCOUNTS = """
SELECT (SELECT count(DISTINCT account) FROM a_balances), (SELECT count(*) FROM mine),
       (SELECT count(*) - count(DISTINCT account) FROM mine)
"""

ON_ITS_WAY = 1_000_000_000
"""ns for which what was sent before a gap began may have been under way, and not read (and clocks differ)."""

EXPECTED = f"""
CREATE TEMP TABLE f_fills AS SELECT m.account_id, i.id AS instrument_id, a.* FROM a_fills a JOIN mine m USING (account)
    LEFT JOIN ours i USING (symbol);
CREATE TEMP TABLE f_orders AS SELECT DISTINCT ON (m.account_id, a.symbol, a.order_id) m.account_id,
    i.id AS instrument_id, a.*, CASE a.status WHEN 'CANCELED' THEN 'cancelled' ELSE lower(a.status) END AS state
    FROM a_orders a JOIN mine m USING (account) LEFT JOIN ours i USING (symbol)
    ORDER BY m.account_id, a.symbol, a.order_id, a.line DESC;
CREATE TEMP TABLE f_balances AS SELECT DISTINCT ON (m.account_id, a.asset) m.account_id, a.*
    FROM a_balances a JOIN mine m USING (account) ORDER BY m.account_id, a.asset, a.line DESC;
CREATE TEMP TABLE f_positions AS SELECT DISTINCT ON (m.account_id, a.symbol) m.account_id, i.id AS instrument_id, a.*
    FROM a_positions a JOIN mine m USING (account) LEFT JOIN ours i USING (symbol)
    ORDER BY m.account_id, a.symbol, a.line DESC;
CREATE TEMP TABLE f_transfers AS SELECT m.account_id, m.shard, a.* FROM a_transfers a JOIN mine m USING (account);
CREATE INDEX ON f_fills (account_id, instrument_id, trade_id, order_id);
CREATE INDEX ON f_orders (account_id, instrument_id, order_id);
ANALYZE f_fills; ANALYZE f_orders;
CREATE TEMP TABLE lost_transfers AS
    WITH told AS (
        SELECT account_id, asset, amount, ns, account, shard,
               row_number() OVER (PARTITION BY account_id, asset, amount, ns) AS nth FROM f_transfers
    ), kept AS (
        SELECT account_id, asset, change, venue_ns,
               row_number() OVER (PARTITION BY account_id, asset, change, venue_ns) AS nth
        FROM balance_changes WHERE account_id IN (SELECT account_id FROM mine) AND change <> 0
    )
    SELECT t.*, EXISTS (SELECT FROM gaps g WHERE g.shard = t.shard AND g.channel = 'Account'
        AND coalesce(g.from_ns, 0) - {ON_ITS_WAY} <= t.ns AND t.ns <= coalesce(g.to_ns, 9223372036854775807)) AS in_gap,
        k.nth IS NULL AS lost
    FROM told t FULL JOIN kept k
        ON (k.account_id, k.asset, k.change, k.venue_ns, k.nth) = (t.account_id, t.asset, t.amount, t.ns, t.nth)
    WHERE t.nth IS NULL OR k.nth IS NULL
"""
"""Transfers have no key that ledger and venue share: those of one amount at one time are counted against each other."""

_IN_MINE = "account_id IN (SELECT account_id FROM mine)"
_NAMED = "JOIN mine m ON m.account_id = t.account_id"
_FILL_KEY = (
    "(t.account_id, t.instrument_id, t.trade_id, t.order_id) = (f.account_id, f.instrument_id, f.trade_id, f.order_id)"
)
_ORDER_KEY = "(t.account_id, t.instrument_id, t.order_id) = (f.account_id, f.instrument_id, f.order_id)"
_POSITION_KEY = "(t.account_id, t.instrument_id) = (f.account_id, f.instrument_id)"
_SIDE = "CASE f.side WHEN 'BUY' THEN 1 ELSE 2 END"

COUNTS = {
    "fills": f"SELECT (SELECT count(*) FROM f_fills), (SELECT count(*) FROM fills WHERE {_IN_MINE})",
    "orders": f"SELECT (SELECT count(*) FROM f_orders), (SELECT count(*) FROM orders WHERE {_IN_MINE})",
    "balances": f"""SELECT (SELECT count(*) FROM f_balances WHERE free + locked <> 0),
        (SELECT count(*) FROM balances WHERE {_IN_MINE} AND total <> 0)""",
    "positions": f"""SELECT (SELECT count(*) FROM f_positions WHERE size <> 0),
        (SELECT count(*) FROM positions WHERE {_IN_MINE} AND size <> 0)""",
    "transfers": f"""SELECT (SELECT count(*) FROM f_transfers),
        (SELECT count(*) FROM balance_changes WHERE {_IN_MINE} AND change <> 0)""",
}
LOST = {
    "fills": f"""SELECT f.account, f.symbol || ' ' || f.trade_id FROM f_fills f
        WHERE NOT EXISTS (SELECT FROM fills t WHERE {_FILL_KEY}) ORDER BY f.line""",
    "orders": f"""SELECT f.account, f.symbol || ' ' || f.order_id FROM f_orders f
        WHERE NOT EXISTS (SELECT FROM orders t WHERE {_ORDER_KEY}) ORDER BY f.line""",
    "balances": """SELECT f.account, f.asset FROM f_balances f WHERE f.free + f.locked <> 0 AND NOT EXISTS
        (SELECT FROM balances t WHERE (t.account_id, t.asset) = (f.account_id, f.asset) AND t.total <> 0)""",
    "positions": f"""SELECT f.account, f.symbol FROM f_positions f WHERE f.size <> 0 AND NOT EXISTS
        (SELECT FROM positions t WHERE {_POSITION_KEY} AND t.size <> 0)""",
    "transfers": "SELECT account, asset || ' ' || amount || ' at ' || ns FROM lost_transfers "
    "WHERE lost AND NOT in_gap ORDER BY ns",
}
PHANTOM = {
    "fills": f"""SELECT m.account, i.symbol || ' ' || t.trade_id FROM fills t {_NAMED}
        JOIN instruments i ON i.id = t.instrument_id WHERE NOT EXISTS (SELECT FROM f_fills f WHERE {_FILL_KEY})""",
    "orders": f"""SELECT m.account, i.symbol || ' ' || t.order_id FROM orders t {_NAMED}
        JOIN instruments i ON i.id = t.instrument_id WHERE NOT EXISTS (SELECT FROM f_orders f WHERE {_ORDER_KEY})""",
    "balances": f"""SELECT m.account, t.asset FROM balances t {_NAMED} WHERE t.total <> 0 AND NOT EXISTS
        (SELECT FROM f_balances f WHERE (t.account_id, t.asset) = (f.account_id, f.asset)
         AND f.free + f.locked <> 0)""",
    "positions": f"""SELECT m.account, i.symbol FROM positions t {_NAMED} JOIN instruments i ON i.id = t.instrument_id
        WHERE t.size <> 0 AND NOT EXISTS (SELECT FROM f_positions f WHERE {_POSITION_KEY} AND f.size <> 0)""",
    "transfers": "SELECT 'a change', 'of a balance' FROM lost_transfers WHERE NOT lost",
}
WRONG = {
    "fills": f"""SELECT f.account, f.symbol || ' ' || f.trade_id FROM f_fills f JOIN fills t ON {_FILL_KEY}
        WHERE (t.side, t.price, t.size, t.fee, t.exchange_ns) IS DISTINCT FROM
              ({_SIDE}, f.price, f.size, f.fee, f.ns)
           OR t.maker IS DISTINCT FROM (f.maker = 1)
           OR (t.fee_asset IS DISTINCT FROM f.fee_asset AND (f.fee <> 0 OR t.fee_asset IS NOT NULL))
        ORDER BY f.line""",
    "orders": f"""SELECT f.account, f.symbol || ' ' || f.order_id FROM f_orders f JOIN orders t ON {_ORDER_KEY}
        WHERE (t.status, t.terminal, t.side, t.type, coalesce(t.price, 0), t.size, t.filled, t.client_order_id,
               t.venue_ns) IS DISTINCT FROM
              (f.state, f.state NOT IN ('new', 'partially_filled'), {_SIDE}, lower(f.type), f.price, f.size, f.filled,
               f.client_id, f.ns) ORDER BY f.line""",
    "balances": """SELECT f.account, f.asset FROM f_balances f
        JOIN balances t ON (t.account_id, t.asset) = (f.account_id, f.asset)
        WHERE t.total <> 0 AND f.free + f.locked <> 0 AND (t.total <> f.free + f.locked
            OR ({split} AND (t.free, t.locked) IS DISTINCT FROM (f.free, f.locked)))""",
    "positions": f"""SELECT f.account, f.symbol FROM f_positions f JOIN positions t ON {_POSITION_KEY}
        WHERE t.size <> 0 AND f.size <> 0 AND (t.size, t.entry_price) IS DISTINCT FROM (f.size, f.entry)""",
}
DOUBLED = f"""
SELECT count(*) - count(DISTINCT (t.account_id, i.symbol, t.trade_id, t.order_id)) FROM fills t
JOIN instruments i ON i.id = t.instrument_id WHERE {_IN_MINE}
"""
TRANSFERS_IN_GAPS = "SELECT count(*) FROM lost_transfers WHERE lost AND in_gap"
"""Not told again by a venue whose REST does not list them; the balance itself is right."""
HALF_FILLED = f"""
SELECT count(*) FROM orders t WHERE {_IN_MINE} AND t.filled <> (
    SELECT coalesce(sum(x.size), 0) FROM fills x
    WHERE (x.account_id, x.instrument_id, x.order_id) = (t.account_id, t.instrument_id, t.order_id))
"""
DEAD_LETTERS = "SELECT count(*) FROM dead_letters WHERE shard IN (SELECT shard FROM mine)"
GAPS_OPEN = "SELECT count(*) FROM gaps WHERE shard IN (SELECT shard FROM mine) AND state = 'open'"

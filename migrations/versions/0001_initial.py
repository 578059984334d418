"""The tables of market data, of what is missing, of what was refused, and of the shards' positions.

Revises: nothing
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FINITE = "({0} > '-Infinity' AND {0} < 'Infinity')"
"""numeric knows NaN and Infinity; NaN sorts above Infinity, so the upper bound refuses both."""

TABLES = (
    """
    CREATE TABLE instruments (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        exchange text NOT NULL,
        market text NOT NULL,
        symbol text NOT NULL,
        native text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (exchange, market, symbol)
    )
    """,
    """
    CREATE TABLE instrument_versions (
        instrument_id integer NOT NULL REFERENCES instruments (id),
        valid_from timestamptz NOT NULL,
        valid_to timestamptz,
        type text NOT NULL,
        base text NOT NULL,
        quote text NOT NULL,
        settle text NOT NULL,
        status text NOT NULL,
        tick numeric,
        lot numeric,
        contract_size numeric,
        expiry timestamptz,
        strike numeric,
        option_type text,
        PRIMARY KEY (instrument_id, valid_from)
    )
    """,
    f"""
    CREATE TABLE trades (
        instrument_id integer NOT NULL,
        trade_id bigint NOT NULL,
        time timestamptz NOT NULL,
        price numeric NOT NULL,
        size numeric NOT NULL,
        side smallint NOT NULL,
        exchange_ns bigint NOT NULL,
        receive_ns bigint NOT NULL,
        flags smallint NOT NULL,
        first_id bigint NOT NULL,
        last_id bigint NOT NULL,
        venue_id text,
        CONSTRAINT trades_price_finite CHECK {FINITE.format("price")},
        CONSTRAINT trades_size_finite CHECK (size >= 0 AND size < 'Infinity'),
        PRIMARY KEY (instrument_id, time, trade_id)
    ) PARTITION BY RANGE (time)
    """,
    f"""
    CREATE TABLE tickers (
        instrument_id integer NOT NULL,
        day date NOT NULL,
        seq bigint NOT NULL,
        bid numeric,
        bid_size numeric,
        ask numeric,
        ask_size numeric,
        exchange_ns bigint,
        receive_ns bigint NOT NULL,
        flags smallint NOT NULL,
        CONSTRAINT tickers_bid_finite CHECK {FINITE.format("bid")},
        CONSTRAINT tickers_ask_finite CHECK {FINITE.format("ask")},
        PRIMARY KEY (instrument_id, seq, day)
    ) PARTITION BY RANGE (day)
    """,
    """
    CREATE TABLE book_snapshots (
        instrument_id integer NOT NULL,
        time timestamptz NOT NULL,
        seq bigint NOT NULL,
        exchange_ns bigint NOT NULL,
        receive_ns bigint NOT NULL,
        bid_prices numeric[] NOT NULL,
        bid_sizes numeric[] NOT NULL,
        ask_prices numeric[] NOT NULL,
        ask_sizes numeric[] NOT NULL,
        CONSTRAINT book_snapshots_levels CHECK (
            cardinality(bid_prices) = cardinality(bid_sizes) AND cardinality(ask_prices) = cardinality(ask_sizes)
            AND array_position(bid_prices || bid_sizes || ask_prices || ask_sizes, NULL) IS NULL
        ),
        PRIMARY KEY (instrument_id, time)
    ) PARTITION BY RANGE (time)
    """,
    """
    CREATE TABLE candles (
        instrument_id integer NOT NULL,
        interval text NOT NULL,
        open_time timestamptz NOT NULL,
        open numeric NOT NULL,
        high numeric NOT NULL,
        low numeric NOT NULL,
        close numeric NOT NULL,
        volume numeric NOT NULL,
        quote_volume numeric NOT NULL,
        trades bigint NOT NULL,
        first_id bigint,
        last_id bigint,
        complete boolean NOT NULL DEFAULT false,
        venue_agrees boolean,
        PRIMARY KEY (instrument_id, interval, open_time)
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE venue_candles (
        instrument_id integer NOT NULL,
        interval text NOT NULL,
        open_time timestamptz NOT NULL,
        open numeric NOT NULL,
        high numeric NOT NULL,
        low numeric NOT NULL,
        close numeric NOT NULL,
        volume numeric NOT NULL,
        quote_volume numeric,
        trades bigint,
        first_id bigint,
        last_id bigint,
        closed boolean NOT NULL,
        exchange_ns bigint NOT NULL,
        receive_ns bigint NOT NULL,
        PRIMARY KEY (instrument_id, interval, open_time)
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE gaps (
        id text PRIMARY KEY,
        shard text NOT NULL,
        instrument_id integer,
        channel text NOT NULL,
        cause text NOT NULL,
        state text NOT NULL,
        from_seq bigint,
        to_seq bigint,
        missing int8multirange NOT NULL DEFAULT '{}',
        from_ns bigint,
        to_ns bigint,
        repaired_by text NOT NULL DEFAULT '',
        revision integer NOT NULL,
        detected_ns bigint NOT NULL
    )
    """,
    """
    CREATE TABLE dead_letters (
        shard text NOT NULL,
        session text NOT NULL,
        batch bigint NOT NULL,
        idx integer NOT NULL,
        conn integer NOT NULL,
        receive_ns bigint NOT NULL,
        reason text NOT NULL,
        detail text NOT NULL,
        code_version text NOT NULL,
        payload bytea NOT NULL,
        PRIMARY KEY (shard, session, batch, idx)
    )
    """,
    """
    CREATE TABLE applied (
        shard text PRIMARY KEY,
        n bigint NOT NULL,
        commit_id text NOT NULL,
        stream_id text NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now()
    ) WITH (fillfactor = 20)
    """,
)

INDEXES = (
    "CREATE INDEX gaps_open ON gaps (instrument_id, channel) WHERE state = 'open'",
    "CREATE INDEX gaps_by_instrument ON gaps (instrument_id, channel, detected_ns)",
    "CREATE INDEX gaps_by_time ON gaps (detected_ns)",
    "CREATE INDEX dead_letters_by_time ON dead_letters (receive_ns)",
    "CREATE INDEX candles_unfinished ON candles (instrument_id, open_time) WHERE interval = '1m' AND NOT complete",
    "CREATE INDEX candles_disagreeing ON candles (instrument_id, open_time) WHERE NOT venue_agrees",
)

TABLE_COMMENTS = {
    "instruments": "Identity of an instrument: one row for each symbol of an exchange market, never deleted.",
    "instrument_versions": "What the venue said of an instrument and since when. A new row for each change of content.",
    "trades": "Every trade, once. Partitions of a day (UTC) of time.",
    "tickers": "Best bid and ask, each state once. Partitions of a day (UTC).",
    "book_snapshots": "The best levels as they stood at the end of each sampling slot. "
    "Partitions of a day (UTC) of time.",
    "candles": "Candles computed from the stored trades: 1m as trades are stored, longer ones rolled up from them.",
    "venue_candles": "Candles as the venue states them, for comparison.",
    "gaps": "What is or was missing. A higher revision replaces a lower one.",
    "dead_letters": "Frames and events that could not be handled, kept as they were.",
    "applied": "Position of each shard in its events stream, moved in the transaction that stores the events.",
}

COLUMN_COMMENTS = {
    "instruments.symbol": "Canonical symbol, such as BTC-USDT.",
    "instruments.native": "The name the venue uses, such as BTCUSDT.",
    "instruments.created_at": "When it was first seen here, UTC.",
    "instrument_versions.valid_from": "Receive time of the answer that first said so, UTC.",
    "instrument_versions.valid_to": "Receive time of the answer that first said otherwise, UTC; null = still so.",
    "instrument_versions.tick": "Least step of the price, in quote currency.",
    "instrument_versions.lot": "Least step of the size.",
    "instrument_versions.contract_size": "Size of one contract; null for spot.",
    "instrument_versions.expiry": "UTC; null = never.",
    "instrument_versions.option_type": "call or put; null where it is no option.",
    "trades.trade_id": "Contiguous number of the unit stored: trade (Spot), aggregate (USD-M), trade_seq (Deribit).",
    "trades.time": "Exchange time cut to ms, UTC.",
    "trades.price": "Quote currency, exactly as the venue wrote it.",
    "trades.size": "In the unit of the venue, exactly as it wrote it.",
    "trades.side": "The taker: 1 = buy, 2 = sell.",
    "trades.exchange_ns": "Exchange time, ns since the epoch, UTC.",
    "trades.receive_ns": "When the frame was received, ns since the epoch, UTC.",
    "trades.flags": "Bits: 1 = late (emitted after a later one of its instrument), 2 = from REST.",
    "trades.first_id": "First raw trade of an aggregate; 0 where the unit is one trade.",
    "trades.last_id": "Last raw trade of an aggregate; 0 where the unit is one trade.",
    "trades.venue_id": "The trade id of the venue where trade_id is another number (Deribit); else null.",
    "tickers.day": "UTC day of the exchange time, or of the receive time where the venue gives none.",
    "tickers.seq": "Update id of the venue, or a hash of time and content where it has none.",
    "tickers.bid": "Null where there is no bid.",
    "tickers.ask": "Null where there is no ask.",
    "tickers.exchange_ns": "Exchange time, ns since the epoch, UTC; null where the venue gives none.",
    "tickers.receive_ns": "When the frame was received, ns since the epoch, UTC.",
    "tickers.flags": "Bits: 1 = late, 2 = from REST.",
    "book_snapshots.time": "End of the sampling slot by exchange time, UTC.",
    "book_snapshots.seq": "Update id of the last change contained.",
    "book_snapshots.exchange_ns": "Exchange time of that change, ns since the epoch, UTC.",
    "book_snapshots.receive_ns": "Receive time of that change, ns since the epoch, UTC.",
    "book_snapshots.bid_prices": "Best first.",
    "book_snapshots.ask_prices": "Best first.",
    "candles.interval": "Length: 1m, 5m, 1h, ...",
    "candles.open_time": "Begin, UTC.",
    "candles.open": "Price of the trade with the smallest id; of an empty candle the close of the one before.",
    "candles.close": "Price of the trade with the largest id; of an empty candle the close of the one before.",
    "candles.volume": "Sum of sizes, in the unit of the venue.",
    "candles.quote_volume": "Sum of price times size.",
    "candles.trades": "Number of stored trades.",
    "candles.first_id": "Smallest trade_id; null where empty.",
    "candles.last_id": "Largest trade_id; null where empty.",
    "candles.complete": "Proven to hold every trade the venue made in that time.",
    "candles.venue_agrees": "Whether the venue's closed candle is equal; null = not compared.",
    "venue_candles.open_time": "Begin, UTC.",
    "venue_candles.quote_volume": "Null where the venue gives none.",
    "venue_candles.trades": "Null where the venue gives none.",
    "venue_candles.first_id": "Id of the first trade as the venue states it; null where empty or not given.",
    "venue_candles.closed": "Final according to the venue.",
    "venue_candles.exchange_ns": "ns since the epoch, UTC; 0 where the venue gives none.",
    "venue_candles.receive_ns": "ns since the epoch, UTC.",
    "gaps.id": "shard/symbol/channel/first missing number or last number before; shard/events/n for lost commits.",
    "gaps.instrument_id": "Null where it concerns the whole shard.",
    "gaps.channel": "Trades, Book, Ticker, Candles; events for lost commits.",
    "gaps.cause": "sequence, disconnected, session_lost, shed, redis_lost or book.",
    "gaps.state": "open or closed.",
    "gaps.from_seq": "Numbered channels: first missing. Others: last seen before (excluded). Null = not known.",
    "gaps.to_seq": "Numbered channels: last missing. Others: first seen after (excluded). Null = not known.",
    "gaps.missing": "Numbered channels: what is still missing.",
    "gaps.from_ns": "Receive time of the last event before, ns since the epoch, UTC; null = not known.",
    "gaps.to_ns": "Receive time of the first event after, ns since the epoch, UTC; null = not known.",
    "gaps.repaired_by": "Empty, or late, snapshot:id, backfill:command.",
    "gaps.detected_ns": "Receive time of the record that showed it, ns since the epoch, UTC.",
    "dead_letters.session": "Session of the receiver; event:commit for events refused by PostgreSQL.",
    "dead_letters.batch": "Batch of the session; for events the number of the commit.",
    "dead_letters.idx": "Position in the batch, or in the commit.",
    "dead_letters.receive_ns": "ns since the epoch, UTC.",
    "dead_letters.payload": "The frame; for events MessagePack of the event.",
    "applied.n": "Number of the last commit stored.",
    "applied.commit_id": "Its random id: what the next commit must name as the one before.",
    "applied.stream_id": "Its entry id in the events stream.",
    "applied.updated_at": "When it was last moved, UTC.",
}


def upgrade() -> None:
    for statement in (*TABLES, *INDEXES):
        op.execute(statement)
    for table, comment in TABLE_COMMENTS.items():
        op.execute(f"COMMENT ON TABLE {table} IS '{comment}'")
    for column, comment in COLUMN_COMMENTS.items():
        op.execute("COMMENT ON COLUMN {} IS '{}'".format(column, comment.replace("'", "''")))


def downgrade() -> None:
    for table in reversed(TABLE_COMMENTS):
        op.execute(f"DROP TABLE {table}")

"""The tables of accounts: who they are, their sealed secrets, orders, fills, balances, positions.

Only adds: services of 0001 work on it unchanged.

Revises: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FINITE = "({0} > '-Infinity' AND {0} < 'Infinity')"
"""numeric knows NaN and Infinity; NaN sorts above Infinity, so the upper bound refuses both."""


def finite(table: str, *columns: str) -> str:
    return ",\n        ".join(f"CONSTRAINT {table}_{name}_finite CHECK {FINITE.format(name)}" for name in columns)


ORDER_COLUMNS = """
        account_id integer NOT NULL REFERENCES accounts (id),
        instrument_id integer NOT NULL REFERENCES instruments (id),
        order_id text NOT NULL,
        client_order_id text NOT NULL DEFAULT '',
        side smallint NOT NULL,
        type text NOT NULL,
        time_in_force text NOT NULL DEFAULT '',
        position_side text NOT NULL DEFAULT '',
        reduce_only boolean,
        price numeric,
        stop_price numeric,
        size numeric,
        filled numeric NOT NULL,
        filled_quote numeric,
        average_price numeric,
        status text NOT NULL,
        terminal boolean NOT NULL,
        reason text NOT NULL DEFAULT '',
        time timestamptz NOT NULL,
        venue_ns bigint NOT NULL,
        created_ns bigint,
        receive_ns bigint NOT NULL,
        flags smallint NOT NULL DEFAULT 0"""

BALANCE_COLUMNS = """
        account_id integer NOT NULL REFERENCES accounts (id),
        asset text NOT NULL,
        total numeric NOT NULL,
        free numeric,
        locked numeric,
        equity numeric,
        time timestamptz NOT NULL,
        venue_ns bigint NOT NULL,
        receive_ns bigint NOT NULL,
        flags smallint NOT NULL DEFAULT 0"""

TABLES = (
    """
    CREATE TABLE accounts (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        namespace text NOT NULL,
        name text NOT NULL,
        exchange text NOT NULL,
        market text NOT NULL,
        environment text NOT NULL,
        origin text NOT NULL,
        endpoints jsonb NOT NULL DEFAULT '{}',
        enabled boolean NOT NULL DEFAULT true,
        allow_withdraw boolean NOT NULL DEFAULT false,
        revision bigint NOT NULL DEFAULT 1,
        verdict text NOT NULL DEFAULT 'unknown',
        verdict_detail text NOT NULL DEFAULT '',
        key_expires_at timestamptz,
        checked_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        removed_at timestamptz,
        CONSTRAINT accounts_removed_off CHECK (removed_at IS NULL OR NOT enabled)
    )
    """,
    """
    CREATE TABLE credentials (
        account_id integer NOT NULL REFERENCES accounts (id),
        field text NOT NULL,
        version integer NOT NULL,
        format smallint NOT NULL,
        key_id text NOT NULL,
        wrapped_key bytea NOT NULL,
        ciphertext bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        wrapped_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (account_id, field),
        CONSTRAINT credentials_version CHECK (version > 0)
    )
    """,
    """
    CREATE TABLE audit_log (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        actor text NOT NULL,
        place text NOT NULL,
        action text NOT NULL,
        account_id integer,
        account text NOT NULL DEFAULT '',
        detail jsonb NOT NULL DEFAULT '{}'
    )
    """,
    f"""
    CREATE TABLE orders ({ORDER_COLUMNS},
        {finite("orders", "price", "stop_price", "size", "filled", "filled_quote", "average_price")},
        PRIMARY KEY (account_id, instrument_id, order_id)
    ) WITH (fillfactor = 70)
    """,
    f"""
    CREATE TABLE order_history (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,{ORDER_COLUMNS},
        {finite("order_history", "price", "stop_price", "size", "filled", "filled_quote", "average_price")},
        CONSTRAINT order_history_state UNIQUE NULLS NOT DISTINCT
            (account_id, instrument_id, order_id, venue_ns, filled, terminal, status, price, size)
    )
    """,
    f"""
    CREATE TABLE fills (
        account_id integer NOT NULL REFERENCES accounts (id),
        instrument_id integer NOT NULL REFERENCES instruments (id),
        trade_id text NOT NULL,
        order_id text NOT NULL,
        client_order_id text NOT NULL DEFAULT '',
        side smallint NOT NULL,
        position_side text NOT NULL DEFAULT '',
        price numeric NOT NULL,
        size numeric NOT NULL,
        quote numeric,
        fee numeric,
        fee_asset text,
        maker boolean,
        venue_realised numeric,
        time timestamptz NOT NULL,
        exchange_ns bigint NOT NULL,
        receive_ns bigint NOT NULL,
        flags smallint NOT NULL DEFAULT 0,
        {finite("fills", "price", "quote", "fee", "venue_realised")},
        CONSTRAINT fills_size_finite CHECK (size >= 0 AND size < 'Infinity'),
        PRIMARY KEY (account_id, instrument_id, trade_id, order_id)
    )
    """,
    f"""
    CREATE TABLE balances ({BALANCE_COLUMNS},
        {finite("balances", "total", "free", "locked", "equity")},
        PRIMARY KEY (account_id, asset)
    ) WITH (fillfactor = 50)
    """,
    f"""
    CREATE TABLE balance_history (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,{BALANCE_COLUMNS},
        {finite("balance_history", "total", "free", "locked", "equity")},
        CONSTRAINT balance_history_state UNIQUE NULLS NOT DISTINCT
            (account_id, asset, venue_ns, total, free, locked, equity)
    )
    """,
    f"""
    CREATE TABLE balance_changes (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        account_id integer NOT NULL REFERENCES accounts (id),
        asset text NOT NULL,
        change numeric NOT NULL,
        cause text NOT NULL,
        venue_id text,
        time timestamptz NOT NULL,
        venue_ns bigint NOT NULL,
        receive_ns bigint NOT NULL,
        flags smallint NOT NULL DEFAULT 0,
        {finite("balance_changes", "change")},
        CONSTRAINT balance_changes_once UNIQUE NULLS NOT DISTINCT
            (account_id, asset, venue_ns, cause, change, venue_id)
    )
    """,
    f"""
    CREATE TABLE positions (
        account_id integer NOT NULL REFERENCES accounts (id),
        instrument_id integer NOT NULL REFERENCES instruments (id),
        position_side text NOT NULL DEFAULT '',
        size numeric NOT NULL,
        entry_price numeric,
        mark_price numeric,
        unrealised numeric,
        venue_realised numeric,
        time timestamptz NOT NULL,
        venue_ns bigint NOT NULL,
        receive_ns bigint NOT NULL,
        flags smallint NOT NULL DEFAULT 0,
        {finite("positions", "size", "entry_price", "mark_price", "unrealised", "venue_realised")},
        PRIMARY KEY (account_id, instrument_id, position_side)
    ) WITH (fillfactor = 50)
    """,
    f"""
    CREATE TABLE results (
        account_id integer NOT NULL REFERENCES accounts (id),
        instrument_id integer NOT NULL REFERENCES instruments (id),
        position_side text NOT NULL DEFAULT '',
        size numeric NOT NULL,
        average_price numeric,
        realised numeric NOT NULL,
        currency text NOT NULL,
        fills bigint NOT NULL,
        last_ns bigint NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now(),
        {finite("results", "size", "average_price", "realised")},
        PRIMARY KEY (account_id, instrument_id, position_side)
    ) WITH (fillfactor = 50)
    """,
    f"""
    CREATE TABLE result_fees (
        account_id integer NOT NULL REFERENCES accounts (id),
        instrument_id integer NOT NULL REFERENCES instruments (id),
        asset text NOT NULL,
        total numeric NOT NULL,
        {finite("result_fees", "total")},
        PRIMARY KEY (account_id, instrument_id, asset)
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE imports (
        file text NOT NULL,
        part text NOT NULL,
        mapping text NOT NULL,
        done bigint NOT NULL DEFAULT 0,
        inserted bigint NOT NULL DEFAULT 0,
        differing bigint NOT NULL DEFAULT 0,
        file_checksum numeric NOT NULL DEFAULT 0,
        stored_checksum numeric NOT NULL DEFAULT 0,
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (file, part, mapping)
    )
    """,
)

INDEXES = (
    # A removed account keeps its history under its id; its name is free again.
    "CREATE UNIQUE INDEX accounts_by_name ON accounts (namespace, name) WHERE removed_at IS NULL",
    "CREATE INDEX credentials_by_key ON credentials (key_id)",
    "CREATE INDEX audit_log_by_account ON audit_log (account_id, at)",
    "CREATE INDEX orders_open ON orders (account_id, instrument_id) WHERE NOT terminal",
    "CREATE INDEX orders_by_time ON orders (account_id, venue_ns)",
    "CREATE INDEX fills_by_time ON fills (account_id, exchange_ns)",
    "CREATE INDEX fills_by_order ON fills (account_id, instrument_id, order_id)",
)

GUARD = (
    """
    CREATE FUNCTION audit_log_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'audit_log: what was written is not changed' USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    """
    CREATE TRIGGER audit_log_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_kept()
    """,
)
"""Keeps a slip, or a service that was taken over, from tidying up; the table's owner can still drop the trigger."""

TABLE_COMMENTS = {
    "accounts": "Accounts at exchanges, one row each, never deleted: what they did stays theirs.",
    "credentials": "Sealed secrets of accounts, the current version only. The key that opens them is not in here.",
    "audit_log": "Who used or changed which account's secrets, and when. Only ever added to; holds no secret.",
    "orders": "Each order as it stands: of what is known, what ranks last by (venue_ns, filled, terminal).",
    "order_history": "Each state of each order that was seen, once.",
    "fills": "Each fill, once, whether stream or REST brought it. A self-trade is two: one for each order.",
    "balances": "Each asset of each account as it stands.",
    "balance_history": "Each state of each balance that was seen, once.",
    "balance_changes": "Deposits, withdrawals and other changes that the venue states as such.",
    "positions": "Each position as the venue states it.",
    "results": "Position and realised profit computed from the fills, fees left out.",
    "result_fees": "Sum of the fees of the fills, each in the asset it was paid in.",
    "imports": "How far feedmill import got with each table of each file, moved with the rows.",
}

_ORDERS = {
    "order_id": "The id of the venue; on Binance unique for the instrument only.",
    "side": "1 = buy, 2 = sell.",
    "position_side": "long, short, or empty where an instrument has one position.",
    "reduce_only": "Null where the venue does not say.",
    "price": "Limit, as the venue wrote it; null = none.",
    "size": "In the unit of the venue; null where the order was given by quote amount.",
    "filled": "Sum of the fills so far according to the venue.",
    "filled_quote": "The same in quote currency; null where the venue gives none.",
    "status": "new, untriggered, partially_filled, filled, cancelled, rejected, expired, or unknown:venue's word.",
    "terminal": "Nothing more can happen to it.",
    "reason": "Why it was rejected, cancelled or expired, as the venue says it; else empty.",
    "time": "Exchange time of this state, UTC (venue_ns cut to microseconds).",
    "venue_ns": "Exchange time of this state, ns since the epoch, UTC.",
    "created_ns": "When the order was made, ns since the epoch, UTC; null = not known.",
    "receive_ns": "When the frame was received, ns since the epoch, UTC.",
    "flags": "Bits: 1 = late, 2 = from REST, 4 = imported.",
}
_BALANCES = {
    "total": "Free and locked; for derivatives the wallet balance.",
    "equity": "With the profit not realised yet; null where there is none.",
    "time": "Exchange time, UTC (venue_ns cut to microseconds).",
    "venue_ns": "Exchange time, ns since the epoch, UTC; receive time where the venue gives none.",
    "receive_ns": "When the frame was received, ns since the epoch, UTC.",
    "flags": "Bits: 1 = late, 2 = from REST, 4 = imported.",
}

COLUMN_COMMENTS = {
    "accounts.namespace": "Of the ExchangeAccount; default for those of feedmill accounts.",
    "accounts.environment": "Production or Testnet.",
    "accounts.origin": "store = feedmill accounts (secrets in credentials), manifest = an ExchangeAccount.",
    "accounts.endpoints": "Addresses other than the venue's own: stream, rest.",
    "accounts.enabled": "False: nothing connects for it.",
    "accounts.allow_withdraw": "Policy: a key that may withdraw is flagged, not refused.",
    "accounts.revision": "Grows with each change, so that who works for the account notices.",
    "accounts.verdict": "On the key's permissions: unknown, ok, warning or refused.",
    "accounts.key_expires_at": "When the venue ends the key, UTC; null = never, or not known.",
    "accounts.checked_at": "When the venue last said what the key may do, UTC.",
    "accounts.created_at": "UTC.",
    "accounts.updated_at": "UTC.",
    "accounts.removed_at": "UTC; null = not removed. From then on the name is free.",
    "credentials.field": "apiKey, apiSecret, privateKey or passphrase.",
    "credentials.version": "Grows with each new secret of that field; part of what the ciphertext is bound to.",
    "credentials.format": "How the two blobs are made: 1 = 12 bytes nonce, AES-256-GCM.",
    "credentials.key_id": "Which key-encryption key wraps the data key.",
    "credentials.wrapped_key": "The data key, wrapped.",
    "credentials.ciphertext": "The secret, sealed with the data key and bound to account, field and version.",
    "credentials.created_at": "When this version of the secret was stored, UTC.",
    "credentials.wrapped_at": "When its data key was last wrapped, UTC.",
    "audit_log.at": "UTC.",
    "audit_log.actor": "User of the operating system, or service.",
    "audit_log.place": "Host or pod.",
    "audit_log.action": "What was done: add, use, rotate-key, ...",
    "audit_log.account_id": "Null where it concerns no single account.",
    "audit_log.account": "Its name then: namespace/name.",
    **{f"{table}.{name}": text for table in ("orders", "order_history") for name, text in _ORDERS.items()},
    **{f"{table}.{name}": text for table in ("balances", "balance_history") for name, text in _BALANCES.items()},
    "fills.trade_id": "The id of the venue: unique for the instrument (Binance) or everywhere (Deribit).",
    "fills.side": "Of this account: 1 = buy, 2 = sell.",
    "fills.position_side": "long, short, or empty where an instrument has one position.",
    "fills.price": "Quote currency, exactly as the venue wrote it.",
    "fills.size": "In the unit of the venue, exactly as it wrote it.",
    "fills.quote": "Price times size according to the venue; null where it gives none.",
    "fills.fee": "Paid, in fee_asset; negative = a rebate. Null = no source has told it yet.",
    "fills.maker": "Null = no source has told it yet.",
    "fills.venue_realised": "Profit realised by this fill according to the venue; null where it gives none.",
    "fills.time": "Exchange time, UTC (exchange_ns cut to microseconds).",
    "fills.exchange_ns": "Exchange time, ns since the epoch, UTC.",
    "fills.receive_ns": "When the frame that was stored first was received, ns since the epoch, UTC.",
    "fills.flags": "Bits: 1 = late, 2 = from REST, 4 = imported. Of the source that was stored first.",
    "balance_changes.cause": "deposit, withdrawal, transfer, funding, ..., or unknown:what the venue said.",
    "balance_changes.venue_id": "The id of the venue; null where it gives none.",
    "balance_changes.time": "Exchange time, UTC (venue_ns cut to microseconds).",
    "balance_changes.venue_ns": "Exchange time, ns since the epoch, UTC.",
    "balance_changes.receive_ns": "When the frame was received, ns since the epoch, UTC.",
    "balance_changes.flags": "Bits: 1 = late, 2 = from REST, 4 = imported.",
    "positions.position_side": "long, short, or empty where an instrument has one position.",
    "positions.size": "Signed, in the unit of the venue; negative = short.",
    "positions.time": "Exchange time, UTC (venue_ns cut to microseconds).",
    "positions.venue_ns": "Exchange time, ns since the epoch, UTC; receive time where the venue gives none.",
    "positions.receive_ns": "When the frame was received, ns since the epoch, UTC.",
    "positions.flags": "Bits: 1 = late, 2 = from REST.",
    "results.size": "Signed sum of the fills.",
    "results.average_price": "Of what is open; null = nothing is.",
    "results.realised": "In currency, by average cost.",
    "results.fills": "How many fills it stands on.",
    "results.last_ns": "Exchange time of the last of them, ns since the epoch, UTC.",
    "results.updated_at": "UTC.",
    "result_fees.total": "Negative = rebates.",
    "imports.file": "SHA-256 of the file.",
    "imports.part": "Table of the file.",
    "imports.mapping": "SHA-256 of how it is read: mapping, account and options.",
    "imports.done": "Rows of the table that are stored, in the order of the file.",
    "imports.inserted": "How many of them were new.",
    "imports.differing": "How many were there already with other content, which was left.",
    "imports.file_checksum": "Sum of the hashes of the rows as the file has them.",
    "imports.stored_checksum": "Sum of the hashes of the rows as the database has them under the same keys.",
    "imports.updated_at": "UTC.",
}


def upgrade() -> None:
    for statement in (*TABLES, *INDEXES, *GUARD):
        op.execute(statement)
    for table, comment in TABLE_COMMENTS.items():
        op.execute(f"COMMENT ON TABLE {table} IS '{comment.replace(chr(39), chr(39) * 2)}'")
    for column, comment in COLUMN_COMMENTS.items():
        # op.execute takes :name for a parameter: a colon in a comment is escaped.
        op.execute("COMMENT ON COLUMN {} IS '{}'".format(column, comment.replace("'", "''").replace(":", r"\:")))


def downgrade() -> None:
    for table in reversed(TABLE_COMMENTS):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION audit_log_is_kept()")

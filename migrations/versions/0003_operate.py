"""What was done and is to be told: backups, restores, runs of maintenance, notifications; and the audit log may age.

Only adds tables. The audit log's guard now lets old rows go to whoever says that it ages them; all else it refuses as
before, so services of 0002 work on it unchanged.

Revises: 0002
"""

# ruff: noqa: S608 (put together from constants of this file only)

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE backups (
        id text PRIMARY KEY,
        kind text NOT NULL,
        state text NOT NULL,
        destination text NOT NULL,
        object text NOT NULL,
        started_ns bigint NOT NULL,
        ended_ns bigint,
        size_bytes bigint,
        sha256 text,
        row_counts jsonb NOT NULL DEFAULT '{}',
        schema_version text NOT NULL,
        key_id text NOT NULL DEFAULT '',
        snapshot_ns bigint,
        wal_from text,
        error text NOT NULL DEFAULT '',
        CONSTRAINT backups_kind CHECK (kind IN ('logical', 'base')),
        CONSTRAINT backups_state CHECK (state IN ('running', 'succeeded', 'failed')),
        CONSTRAINT backups_ended CHECK ((state = 'running') = (ended_ns IS NULL))
    )
    """,
    """
    CREATE TABLE restores (
        id text PRIMARY KEY,
        backup_id text NOT NULL,
        mode text NOT NULL,
        state text NOT NULL,
        to_ns bigint,
        started_ns bigint NOT NULL,
        ended_ns bigint,
        row_counts jsonb NOT NULL DEFAULT '{}',
        error text NOT NULL DEFAULT '',
        CONSTRAINT restores_mode CHECK (mode IN ('verify', 'restore')),
        CONSTRAINT restores_state CHECK (state IN ('running', 'succeeded', 'failed')),
        CONSTRAINT restores_ended CHECK ((state = 'running') = (ended_ns IS NULL))
    )
    """,
    """
    CREATE TABLE maintenance_runs (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        started_ns bigint NOT NULL,
        ended_ns bigint,
        outcome text NOT NULL DEFAULT 'running',
        report jsonb NOT NULL DEFAULT '{}',
        CONSTRAINT maintenance_runs_outcome CHECK (outcome IN ('running', 'succeeded', 'partly', 'failed')),
        CONSTRAINT maintenance_runs_ended CHECK ((outcome = 'running') = (ended_ns IS NULL))
    )
    """,
    """
    CREATE TABLE notifications (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        pipeline text NOT NULL,
        at_ns bigint NOT NULL,
        severity text NOT NULL,
        kind text NOT NULL,
        subject text NOT NULL,
        key text NOT NULL,
        body jsonb NOT NULL DEFAULT '{}',
        not_before_ns bigint NOT NULL DEFAULT 0,
        attempts integer NOT NULL DEFAULT 0,
        sent_ns bigint,
        outcome text NOT NULL DEFAULT 'waiting'
    )
    """,
    """
    CREATE TABLE notify_state (
        name text PRIMARY KEY,
        state jsonb NOT NULL,
        updated_ns bigint NOT NULL
    ) WITH (fillfactor = 50)
    """,
)

INDEXES = (
    "CREATE INDEX backups_by_time ON backups (started_ns)",
    "CREATE INDEX restores_by_time ON restores (started_ns)",
    "CREATE INDEX maintenance_runs_by_time ON maintenance_runs (started_ns)",
    "CREATE INDEX notifications_waiting ON notifications (pipeline, id) WHERE outcome = 'waiting'",
    "CREATE INDEX notifications_by_time ON notifications (at_ns)",
    "CREATE INDEX audit_log_by_time ON audit_log (at)",
)

TABLE_COMMENTS = {
    "backups": "Backups begun here, and what became of them. Which ones there are the destination knows.",
    "restores": "Restores and drills (verify) that were made, into this database or from its backups.",
    "maintenance_runs": "Each run of maintenance: what it did and found.",
    "notifications": "What is to be told to people, in the order it is told. A row is sent at least once.",
    "notify_state": "What the notifier of each pipeline is to be told of, and what it told last of how things are.",
}

GAP_CAUSE = "sequence, disconnected, session_lost, shed, redis_lost or book{}."

COLUMN_COMMENTS = {
    "backups.id": "Begin (UTC), kind and six random digits: 20261126T030000Z-logical-3f9a1c.",
    "backups.kind": "logical = a dump of one snapshot; base = the files, from which WAL goes on.",
    "backups.state": "running, succeeded or failed.",
    "backups.destination": "Where it went, without secrets.",
    "backups.object": "Its folder at the destination.",
    "backups.started_ns": "ns since the epoch, UTC.",
    "backups.ended_ns": "ns since the epoch, UTC; null = still running, or cut off.",
    "backups.size_bytes": "Of the sealed data.",
    "backups.sha256": "Of the sealed data, hexadecimal.",
    "backups.row_counts": "Table -> rows in the snapshot; empty for kind base.",
    "backups.schema_version": "Revision of the schema it holds.",
    "backups.key_id": "Which key-encryption key seals it; empty = not sealed.",
    "backups.snapshot_ns": "The moment the content is of, ns since the epoch, UTC.",
    "backups.wal_from": "Kind base: first WAL file that a restore needs.",
    "backups.error": "Why it failed; else empty.",
    "restores.backup_id": "Of the backup it was made from, which this database need not know.",
    "restores.mode": "verify = a drill in a scratch server; restore = into this database.",
    "restores.state": "running, succeeded or failed.",
    "restores.to_ns": "The time restored to, ns since the epoch, UTC; null = as far as the backup reaches.",
    "restores.started_ns": "ns since the epoch, UTC.",
    "restores.ended_ns": "ns since the epoch, UTC; null = still running, or cut off.",
    "restores.row_counts": "Table -> rows found after it.",
    "restores.error": "Why it failed; else empty.",
    "maintenance_runs.started_ns": "ns since the epoch, UTC.",
    "maintenance_runs.ended_ns": "ns since the epoch, UTC; null = running, or cut off and not noticed yet.",
    "maintenance_runs.outcome": "running, succeeded, partly (a part of it failed) or failed.",
    "maintenance_runs.report": "What feedmill maintain report shows.",
    "notifications.pipeline": "Whose notifier tells it: namespace/name.",
    "notifications.at_ns": "When it happened, ns since the epoch, UTC.",
    "notifications.severity": "Info, Warning or Critical.",
    "notifications.kind": "What happened, such as FeedStale.",
    "notifications.subject": "What it is about, such as a feed.",
    "notifications.key": "Those with the same key may be told as one.",
    "notifications.body": "What the text is made of; no secret.",
    "notifications.not_before_ns": "Not sent earlier (quiet hours, a limit), ns since the epoch, UTC; 0 = at once.",
    "notifications.attempts": "How often sending was tried.",
    "notifications.sent_ns": "When the chat confirmed it, ns since the epoch, UTC; null = not sent.",
    "notifications.outcome": "waiting, sent, or why it is not sent.",
    "notify_state.name": "The pipeline: what its notifier is to be told of. With /conditions: what is wrong now.",
    "notify_state.updated_ns": "When its notifier last worked, ns since the epoch, UTC. A week on nothing is kept.",
}

AGING = (
    "DROP TRIGGER audit_log_kept ON audit_log",
    """
    CREATE OR REPLACE FUNCTION audit_log_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND current_setting('feedmill.ages_audit', true) = 'on' THEN
            IF OLD.at < clock_timestamp() - interval '30 days' THEN
                RETURN OLD;
            END IF;
        END IF;
        RAISE EXCEPTION 'audit_log: what was written is not changed' USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    """
    CREATE TRIGGER audit_log_kept BEFORE UPDATE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_kept()
    """,
    """
    CREATE TRIGGER audit_log_aged BEFORE DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_is_kept()
    """,
)
"""Maintenance ages the log in a transaction that says so; what is younger than 30 days stays whatever is asked."""

NO_AGING = (
    "DROP TRIGGER audit_log_aged ON audit_log",
    "DROP TRIGGER audit_log_kept ON audit_log",
    """
    CREATE OR REPLACE FUNCTION audit_log_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'audit_log: what was written is not changed' USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    """
    CREATE TRIGGER audit_log_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_kept()
    """,
)

_FEED = "split_part({0}, '.', 1) || '/' || split_part({0}, '.', 2)"
"""The feed (or ``@account``) of a shard's name."""
_FEED_WANTED = f"(w.feeds ? ({_FEED}) OR strpos({{0}}, '.@') > 0)"


def _losses(name: str, more: str = "") -> str:
    """Of gaps that ended without anything having repaired them."""
    return f"""
    CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO notifications (pipeline, at_ns, severity, kind, subject, key, body)
        SELECT w.pipeline, w.now_ns, 'Info', 'DataLost', {_FEED.format("g.shard")},
               'DataLost/' || g.shard || '/' || g.channel || '/' || g.cause,
               jsonb_build_object('shard', g.shard, 'channel', g.channel, 'cause', g.cause, 'gaps', count(*),
                                  'symbols', to_jsonb((array_agg(DISTINCT i.symbol))[1:5]),
                                  'from_ns', min(g.from_ns), 'to_ns', max(g.to_ns), 'event_ns', min(g.detected_ns))
        FROM notify_wanted('DataLost') w JOIN added g ON {_FEED_WANTED.format("g.shard")}{more}
        LEFT JOIN instruments i ON i.id = g.instrument_id
        WHERE g.state = 'closed' AND g.repaired_by = '' AND g.channel <> 'events'
        GROUP BY w.pipeline, w.now_ns, g.shard, g.channel, g.cause;
        RETURN NULL;
    END $$
    """


NOTIFY = (
    """
    CREATE FUNCTION notify_wanted(wanted text)
    RETURNS TABLE (pipeline text, feeds jsonb, since_ns bigint, now_ns bigint) LANGUAGE sql STABLE AS $$
        SELECT name, state -> 'feeds', (state ->> 'since_ns')::bigint, t.ns FROM notify_state,
               LATERAL (SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint AS ns) AS t
        WHERE state -> 'wants' ? wanted AND updated_ns > t.ns - 604800000000000
    $$
    """,
    """
    CREATE FUNCTION notify_of_fills() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO notifications (pipeline, at_ns, severity, kind, subject, key, body)
        SELECT w.pipeline, w.now_ns, 'Info', 'Fill', a.namespace || '/' || a.name,
               'Fill/' || f.account_id || '/' || f.instrument_id,
               jsonb_build_object(
                   'exchange', a.exchange, 'market', a.market, 'symbol', i.symbol, 'side', f.side,
                   'price', f.price::text, 'size', f.size::text, 'quote', f.quote::text, 'fee', f.fee::text,
                   'fee_asset', f.fee_asset, 'order', f.order_id, 'event_ns', f.exchange_ns)
        FROM notify_wanted('Fill') w
        JOIN added f ON f.exchange_ns >= w.since_ns AND f.flags & 4 = 0
        JOIN accounts a ON a.id = f.account_id AND f.time >= a.created_at
        JOIN instruments i ON i.id = f.instrument_id
        ORDER BY f.exchange_ns;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION notify_of_orders() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO notifications (pipeline, at_ns, severity, kind, subject, key, body)
        SELECT w.pipeline, w.now_ns, 'Info', 'Order', a.namespace || '/' || a.name,
               'Order/' || o.account_id || '/' || o.instrument_id,
               jsonb_build_object(
                   'exchange', a.exchange, 'market', a.market, 'symbol', i.symbol, 'side', o.side, 'type', o.type,
                   'status', o.status, 'price', o.price::text, 'size', o.size::text, 'filled', o.filled::text,
                   'reason', o.reason, 'order', o.order_id, 'event_ns', o.venue_ns)
        FROM notify_wanted('Order') w
        JOIN added o ON o.venue_ns >= w.since_ns AND o.flags & 4 = 0
        JOIN accounts a ON a.id = o.account_id AND o.time >= a.created_at
        JOIN instruments i ON i.id = o.instrument_id
        ORDER BY o.venue_ns, o.filled;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION notify_of_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO notifications (pipeline, at_ns, severity, kind, subject, key, body)
        SELECT w.pipeline, w.now_ns, 'Info', 'Transfer', a.namespace || '/' || a.name, 'Transfer/' || c.account_id,
               jsonb_build_object(
                   'exchange', a.exchange, 'market', a.market, 'asset', c.asset, 'change', c.change::text,
                   'cause', c.cause, 'event_ns', c.venue_ns)
        FROM notify_wanted('Transfer') w
        JOIN added c ON c.venue_ns >= w.since_ns AND c.flags & 4 = 0
            AND c.cause IN ('deposit', 'withdrawal', 'transfer', 'unknown:balanceUpdate')
        JOIN accounts a ON a.id = c.account_id AND c.time >= a.created_at
        ORDER BY c.venue_ns;
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE FUNCTION notify_of_letters() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO notifications (pipeline, at_ns, severity, kind, subject, key, body)
        SELECT w.pipeline, w.now_ns, 'Warning', 'DeadLetters', {_FEED.format("d.shard")},
               'DeadLetters/' || d.shard || '/' || d.reason,
               jsonb_build_object('shard', d.shard, 'reason', d.reason, 'letters', count(*),
                                  'detail', left(min(d.detail), 300), 'event_ns', min(d.receive_ns))
        FROM notify_wanted('DeadLetters') w JOIN added d ON {_FEED_WANTED.format("d.shard")}
        GROUP BY w.pipeline, w.now_ns, d.shard, d.reason;
        RETURN NULL;
    END $$
    """,
    _losses("notify_of_losses"),
    _losses("notify_of_closed_losses", " JOIN earlier b ON b.id = g.id AND b.state = 'open'"),
    """
    CREATE FUNCTION notify_of_work() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        was jsonb := CASE WHEN TG_OP = 'UPDATE' THEN to_jsonb(OLD) ELSE '{}' END;
        is_now jsonb := to_jsonb(NEW);
        result text := is_now ->> 'state';
        what text := CASE WHEN TG_TABLE_NAME = 'backups' THEN 'Backup'
                          WHEN is_now ->> 'mode' = 'verify' THEN 'Drill' ELSE 'Restore' END;
    BEGIN
        IF result IS NOT DISTINCT FROM was ->> 'state' OR result NOT IN ('failed', 'succeeded') THEN
            RETURN NULL;
        END IF;
        what := what || CASE result WHEN 'failed' THEN 'Failed' ELSE 'Done' END;
        INSERT INTO notifications (pipeline, at_ns, severity, kind, subject, key, body)
        SELECT w.pipeline, w.now_ns, CASE WHEN result = 'succeeded' THEN 'Info' ELSE 'Critical' END, what,
               coalesce(is_now ->> 'kind', is_now ->> 'backup_id'), what,
               is_now - 'row_counts' || jsonb_build_object('event_ns', is_now -> 'ended_ns')
        FROM notify_wanted(what) w;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER notify_of_fills AFTER INSERT ON fills
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION notify_of_fills()
    """,
    """
    CREATE TRIGGER notify_of_orders AFTER INSERT ON order_history
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION notify_of_orders()
    """,
    """
    CREATE TRIGGER notify_of_transfers AFTER INSERT ON balance_changes
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION notify_of_transfers()
    """,
    """
    CREATE TRIGGER notify_of_letters AFTER INSERT ON dead_letters
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION notify_of_letters()
    """,
    """
    CREATE TRIGGER notify_of_losses AFTER INSERT ON gaps
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION notify_of_losses()
    """,
    """
    CREATE TRIGGER notify_of_closed_losses AFTER UPDATE ON gaps
    REFERENCING OLD TABLE AS earlier NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION notify_of_closed_losses()
    """,
    "CREATE TRIGGER notify_of_backups AFTER INSERT OR UPDATE ON backups FOR EACH ROW EXECUTE FUNCTION notify_of_work()",
    "CREATE TRIGGER notify_of_restores AFTER INSERT OR UPDATE ON restores "
    "FOR EACH ROW EXECUTE FUNCTION notify_of_work()",
)
"""What happens is put into the outbox in its own transaction: nothing is lost, whoever stops when. Where nobody asked
to be told (notify_state), each costs a look at an empty table a statement."""

_NOTIFIERS = ("fills", "orders", "transfers", "letters", "losses", "closed_losses", "work")
NO_NOTIFY = tuple(
    f"DROP FUNCTION {name} CASCADE"
    for name in (
        *(f"notify_of_{what}()" for what in _NOTIFIERS),
        "notify_wanted(text)",
    )
)


def comment_on_cause(more: str) -> None:
    op.execute(f"COMMENT ON COLUMN gaps.cause IS '{GAP_CAUSE.format(more)}'")


def upgrade() -> None:
    for statement in (*TABLES, *INDEXES, *AGING, *NOTIFY):
        op.execute(statement)
    for table, comment in TABLE_COMMENTS.items():
        op.execute("COMMENT ON TABLE {} IS '{}'".format(table, comment.replace("'", "''")))
    for column, comment in COLUMN_COMMENTS.items():
        # op.execute takes :name for a parameter: a colon in a comment is escaped.
        op.execute("COMMENT ON COLUMN {} IS '{}'".format(column, comment.replace("'", "''").replace(":", r"\:")))
    comment_on_cause("; restore: what a restored database lacks; forgotten: what was given up by hand")


def downgrade() -> None:
    for statement in (*NO_NOTIFY, *NO_AGING):
        op.execute(statement)
    op.execute("DROP INDEX audit_log_by_time")
    for table in reversed(TABLE_COMMENTS):
        op.execute(f"DROP TABLE {table}")
    comment_on_cause("")

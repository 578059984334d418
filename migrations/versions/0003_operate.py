"""What was done and is to be told: backups, restores, runs of maintenance, notifications; and the audit log may age.

Only adds tables. The audit log's guard now lets old rows go to whoever says that it ages them; all else it refuses as
before, so services of 0002 work on it unchanged.

Revises: 0002
"""

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
    "CREATE INDEX notifications_waiting ON notifications (not_before_ns, id) WHERE outcome = 'waiting'",
    "CREATE INDEX notifications_by_time ON notifications (at_ns)",
    "CREATE INDEX audit_log_by_time ON audit_log (at)",
)

TABLE_COMMENTS = {
    "backups": "Backups begun here, and what became of them. Which ones there are the destination knows.",
    "restores": "Restores and drills (verify) that were made, into this database or from its backups.",
    "maintenance_runs": "Each run of maintenance: what it did and found.",
    "notifications": "What is to be told to people, in the order it is told. A row is sent at least once.",
    "notify_state": "How far the notifier looked at what, and what it knows of the state told last.",
}

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
    "maintenance_runs.ended_ns": "ns since the epoch, UTC; null = still running, or cut off.",
    "maintenance_runs.outcome": "running, succeeded, partly (a part of it failed or was put off) or failed.",
    "maintenance_runs.report": "What feedmill maintain report shows.",
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
    "notify_state.state": "Positions by table, states by subject.",
    "notify_state.updated_ns": "ns since the epoch, UTC.",
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


def upgrade() -> None:
    for statement in (*TABLES, *INDEXES, *AGING):
        op.execute(statement)
    for table, comment in TABLE_COMMENTS.items():
        op.execute(f"COMMENT ON TABLE {table} IS '{comment}'")
    for column, comment in COLUMN_COMMENTS.items():
        # op.execute takes :name for a parameter: a colon in a comment is escaped.
        op.execute("COMMENT ON COLUMN {} IS '{}'".format(column, comment.replace("'", "''").replace(":", r"\:")))


def downgrade() -> None:
    for statement in NO_AGING:
        op.execute(statement)
    op.execute("DROP INDEX audit_log_by_time")
    for table in reversed(TABLE_COMMENTS):
        op.execute(f"DROP TABLE {table}")

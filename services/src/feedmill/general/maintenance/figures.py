"""What PostgreSQL says of its tables, indexes and sessions, asked for in four questions. Read only."""

from __future__ import annotations

from dataclasses import dataclass, field

import asyncpg


@dataclass(frozen=True, slots=True)
class Table:
    """A table or a partition. Ages in seconds; None = never, or not known."""

    name: str
    parent: str
    """The partitioned table; empty = it is none of its partitions."""
    partitioned: bool
    rows: float
    """Estimate of the last VACUUM or ANALYZE; -1 = there was none."""
    live: int
    dead: int
    changed: int
    """Rows changed since the last ANALYZE."""
    size: int
    """Bytes of the rows alone."""
    total: int
    """With indexes and what is stored out of line."""
    index_bytes: int
    fill: int
    """Percent of a page that inserts may fill."""
    row_bytes: float | None
    """Mean of the columns' widths; None = no statistics."""
    autovacuum: bool
    vacuumed: float | None
    analyzed: float | None
    seq_scans: int
    seq_rows: int


@dataclass(frozen=True, slots=True)
class Index:
    """An index; those of partitions are counted into the one of their partitioned table."""

    name: str
    table: str
    columns: str
    """What it is made of, for comparison: access method, columns, condition."""
    scans: int
    size: int
    constraint: bool
    """Unique, a key, or an exclusion: needed whether it is used or not."""
    valid: bool
    expected: float | None
    """Bytes it would take if it were made anew (B-trees only); None = not known."""
    made: int
    """Grows: of two the larger one was made later."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What keeps dead rows from being removed, or WAL from being recycled."""

    kind: str
    """transaction | prepared | slot."""
    name: str
    age: float
    """Seconds since it began; 0 for slots."""
    wal_bytes: int
    """Of slots: WAL kept for it."""
    active: bool
    holds_rows: bool


@dataclass(frozen=True, slots=True)
class Server:
    """The server and the database. ``counted``: seconds that the counters of use cover."""

    autovacuum: bool
    counts: bool
    vacuum_threshold: int
    vacuum_scale: float
    xid_age: int
    multixact_age: int
    counted: float
    database_bytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it."""

    server: Server
    tables: list[Table] = field(default_factory=list)
    indexes: list[Index] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)


_SCHEMA = "(SELECT relnamespace FROM pg_class WHERE oid = 'applied'::regclass)"
"""The schema that holds our tables."""

_SERVER = """
SELECT current_setting('autovacuum')::bool AS autovacuum, current_setting('track_counts')::bool AS counts,
       current_setting('autovacuum_vacuum_threshold')::int AS vacuum_threshold,
       current_setting('autovacuum_vacuum_scale_factor')::float8 AS vacuum_scale,
       age(d.datfrozenxid) AS xid_age, mxid_age(d.datminmxid) AS multixact_age,
       extract(epoch FROM now() - coalesce(s.stats_reset, pg_postmaster_start_time()))::float8 AS counted,
       pg_database_size(d.oid) AS database_bytes
FROM pg_database d LEFT JOIN pg_stat_database s ON s.datid = d.oid WHERE d.datname = current_database()
"""

_TABLES = f"""
SELECT c.relname AS name, coalesce(parent.relname, '') AS parent, c.relkind = 'p' AS partitioned,
       c.reltuples::float8 AS rows, coalesce(s.n_live_tup, 0) AS live, coalesce(s.n_dead_tup, 0) AS dead,
       coalesce(s.n_mod_since_analyze, 0) AS changed, pg_relation_size(c.oid) AS size,
       pg_total_relation_size(c.oid) AS total, pg_indexes_size(c.oid) AS index_bytes,
       coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'), 100)
           AS fill,
       (SELECT sum((1 - null_frac) * avg_width)::float8 FROM pg_stats p
        WHERE p.schemaname = c.relnamespace::regnamespace::text AND p.tablename = c.relname AND NOT p.inherited)
           AS row_bytes,
       coalesce((SELECT option_value::bool FROM pg_options_to_table(c.reloptions)
                 WHERE option_name = 'autovacuum_enabled'), true) AS autovacuum,
       extract(epoch FROM now() - greatest(s.last_vacuum, s.last_autovacuum))::float8 AS vacuumed,
       extract(epoch FROM now() - greatest(s.last_analyze, s.last_autoanalyze))::float8 AS analyzed,
       coalesce(s.seq_scan, 0) AS seq_scans, coalesce(s.seq_tup_read, 0) AS seq_rows
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_class parent ON parent.oid = i.inhparent
LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
WHERE c.relnamespace = {_SCHEMA} AND c.relkind IN ('r', 'p')
ORDER BY c.relname
"""  # noqa: S608 (from constants)

_INDEXES = f"""
WITH each AS (
    SELECT coalesce(i.inhparent, x.indexrelid) AS top, x.indisvalid, pg_relation_size(x.indexrelid) AS size,
           coalesce(s.idx_scan, 0) AS scans,
           CASE WHEN am.amname = 'btree' AND t.reltuples >= 0
                THEN t.reltuples::float8 * (12 + ceil(w.width / 8) * 8) / 0.9 END AS expected
    FROM pg_index x
    JOIN pg_class c ON c.oid = x.indexrelid
    JOIN pg_class t ON t.oid = x.indrelid
    JOIN pg_am am ON am.oid = c.relam
    LEFT JOIN pg_inherits i ON i.inhrelid = x.indexrelid
    LEFT JOIN pg_stat_all_indexes s ON s.indexrelid = x.indexrelid
    -- Of a partial index, or one on an expression, it is not known how many rows and bytes it holds.
    LEFT JOIN LATERAL (
        SELECT sum(p.avg_width)::float8 AS width
        FROM pg_attribute a
        JOIN pg_stats p ON p.schemaname = t.relnamespace::regnamespace::text AND p.tablename = t.relname
                       AND p.attname = a.attname AND NOT p.inherited
        WHERE a.attrelid = t.oid AND a.attnum = ANY (x.indkey)
        HAVING count(*) = x.indnatts
    ) w ON x.indpred IS NULL AND x.indexprs IS NULL
    WHERE c.relnamespace = {_SCHEMA}
), whole AS (
    SELECT top, sum(scans)::bigint AS scans, sum(size)::bigint AS size, bool_and(indisvalid) AS valid,
           CASE WHEN bool_and(size = 0 OR expected IS NOT NULL) THEN sum(expected) FILTER (WHERE size > 0) END
               AS expected
    FROM each GROUP BY top
)
SELECT c.relname AS name, t.relname AS table, am.amname || ' ' || x.indkey::text || ' ' || x.indclass::text || ' '
       || coalesce(pg_get_expr(x.indexprs, x.indrelid), '') || ' ' || coalesce(pg_get_expr(x.indpred, x.indrelid), '')
           AS columns,
       w.scans, w.size, x.indisunique OR x.indisprimary OR x.indisexclusion OR x.indisreplident AS constraint,
       w.valid, w.expected, c.oid::bigint AS made
FROM whole w
JOIN pg_class c ON c.oid = w.top
JOIN pg_index x ON x.indexrelid = w.top
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_am am ON am.oid = c.relam
ORDER BY c.relname
"""  # noqa: S608 (from constants)

_HOLDERS = """
SELECT 'transaction' AS kind,
       coalesce(nullif(application_name, ''), usename, 'a session') || ' (pid ' || pid || ')' AS name,
       extract(epoch FROM now() - xact_start)::float8 AS age, 0::bigint AS wal_bytes, true AS active,
       true AS holds_rows
FROM pg_stat_activity
WHERE datname = current_database() AND backend_xmin IS NOT NULL AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
UNION ALL
SELECT 'prepared', gid, extract(epoch FROM now() - prepared)::float8, 0, true, true
FROM pg_prepared_xacts WHERE database = current_database()
UNION ALL
SELECT 'slot', slot_name::text, 0, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint, active,
       xmin IS NOT NULL OR catalog_xmin IS NOT NULL
FROM pg_replication_slots
ORDER BY 1, 2
"""


async def look(connection: asyncpg.Connection) -> Figures:
    """Raises asyncpg errors. What the user may not see (other users' sessions) is left out."""
    server = await connection.fetchrow(_SERVER)
    assert server is not None
    return Figures(
        Server(**server),
        [Table(**row) for row in await connection.fetch(_TABLES)],
        [Index(**row) for row in await connection.fetch(_INDEXES)],
        [Holder(**row) for row in await connection.fetch(_HOLDERS)],
    )

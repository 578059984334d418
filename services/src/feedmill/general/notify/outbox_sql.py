"""The SQL of the outbox, and of the tables that a look reads."""

from __future__ import annotations

LOCK = "SELECT pg_try_advisory_lock($1, hashtext($2))"
"""One notifier of a pipeline at a time: two would send in two orders, and twice as fast."""
LOCK_CLASS = 0x6665_6564
REGISTER = """
INSERT INTO notify_state AS s (name, state, updated_ns)
VALUES ($1, jsonb_build_object('wants', $2::jsonb, 'feeds', $3::jsonb, 'since_ns', $4::bigint), $4)
ON CONFLICT (name) DO UPDATE SET
    state = jsonb_build_object('wants', $2::jsonb, 'feeds', $3::jsonb, 'since_ns',
                               CASE WHEN s.updated_ns > $4 - 604800000000000 THEN s.state -> 'since_ns'
                                    ELSE to_jsonb($4::bigint) END),
    updated_ns = greatest(s.updated_ns, $4)
"""
"""What triggers are to put into the outbox. What happened before a pipeline was first registered is not told."""
STATE = "SELECT state FROM notify_state WHERE name = $1"
SAVE = """
INSERT INTO notify_state (name, state, updated_ns) VALUES ($1, $2::jsonb, $3)
ON CONFLICT (name) DO UPDATE SET state = excluded.state, updated_ns = excluded.updated_ns
"""
TELL = """
INSERT INTO notifications (pipeline, at_ns, severity, kind, subject, key, body, sent_ns, outcome)
SELECT $1, at, sv, k, su, ke, b::jsonb, nullif(se, 0), CASE WHEN se = 0 THEN 'waiting' ELSE 'sent' END
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
     WITH ORDINALITY AS u(at, sv, k, su, ke, b, se, n)
WHERE NOT EXISTS (
    SELECT 1 FROM notifications WHERE pipeline = $1 AND at_ns = at AND kind = k AND key = ke AND body = b::jsonb
)
ORDER BY n
"""
WAITING = """
SELECT id, at_ns, severity, kind, subject, key, body, not_before_ns, attempts FROM notifications
WHERE pipeline = $1 AND outcome = 'waiting' AND not_before_ns <= $2 ORDER BY id LIMIT $3
"""
COUNT = """
SELECT count(*) AS waiting, coalesce(min(at_ns), 0) AS oldest_ns FROM notifications
WHERE pipeline = $1 AND outcome = 'waiting'
"""
SENT = """
UPDATE notifications SET outcome = 'sent', sent_ns = $2, attempts = attempts + 1 WHERE id = ANY($1::bigint[])
"""
POSTPONE = "UPDATE notifications SET not_before_ns = $2 WHERE id = ANY($1::bigint[])"
HURRY = """
UPDATE notifications SET not_before_ns = 0 WHERE pipeline = $1 AND outcome = 'waiting' AND not_before_ns > 0
"""
TRIED = "UPDATE notifications SET attempts = attempts + 1 WHERE id = ANY($1::bigint[])"
REFUSED = "UPDATE notifications SET outcome = $2, attempts = attempts + 1 WHERE id = ANY($1::bigint[])"
SENT_SINCE = "SELECT DISTINCT sent_ns FROM notifications WHERE sent_ns > $1 AND at_ns > $2"
"""By the index of at_ns: what was sent in the last minute is at most some days old."""

GAPS = """
SELECT g.shard, g.channel, g.cause, count(*) AS gaps, count(DISTINCT g.instrument_id) AS instruments,
       coalesce(sum((SELECT sum(upper(r) - lower(r)) FROM unnest(g.missing) AS r)), 0)::bigint AS missing,
       (array_agg(DISTINCT i.symbol) FILTER (WHERE i.symbol IS NOT NULL))[1:5] AS symbols,
       min(g.detected_ns) AS since_ns
FROM gaps g LEFT JOIN instruments i ON i.id = g.instrument_id
WHERE g.state = 'open' GROUP BY g.shard, g.channel, g.cause ORDER BY g.shard, g.channel, g.cause
"""
KEYS = """
SELECT namespace || '/' || name AS account, (extract(epoch FROM key_expires_at) * 1000000000)::bigint AS expires_ns
FROM accounts WHERE removed_at IS NULL AND enabled AND key_expires_at < now() + $1 * interval '1 day'
ORDER BY 1 LIMIT 100
"""
BACKUPS = """
SELECT (SELECT max(started_ns) FROM backups WHERE kind = 'logical' AND state = 'succeeded') AS good_ns,
       (SELECT CASE WHEN state = 'failed' THEN error ELSE '' END FROM backups
        WHERE kind = 'logical' AND state <> 'running' ORDER BY started_ns DESC LIMIT 1) AS error,
       (SELECT (state ->> 'since_ns')::bigint FROM notify_state WHERE name = $1) AS first_ns,
       (SELECT max(ended_ns) FROM maintenance_runs WHERE outcome IN ('succeeded', 'partly')) AS maintained_ns,
       (SELECT jsonb_build_object('outcome', outcome, 'errors', report -> 'errors', 'findings', report -> 'findings')
        FROM maintenance_runs WHERE ended_ns IS NOT NULL ORDER BY started_ns DESC LIMIT 1) AS maintenance
"""
ACCOUNTS = "SELECT DISTINCT namespace || '/' || name AS name FROM accounts"
LISTED = """
SELECT id, pipeline, at_ns, severity, kind, subject, key, body, not_before_ns, attempts, sent_ns, outcome
FROM notifications
WHERE ($1::text = '' OR pipeline = $1) AND ($2::text = '' OR kind = $2) AND at_ns >= $3
  AND (NOT $4::bool OR outcome = 'waiting') AND (NOT $5::bool OR outcome NOT IN ('waiting', 'sent'))
ORDER BY id DESC LIMIT $6
"""
RETRY = """
UPDATE notifications SET outcome = 'waiting', not_before_ns = 0
WHERE outcome NOT IN ('waiting', 'sent') AND ($1::bigint[] IS NULL OR id = ANY($1)) AND ($2::text = '' OR pipeline = $2)
RETURNING id
"""
DROP = """
UPDATE notifications SET outcome = 'dropped'
WHERE outcome = 'waiting' AND ($1::bigint[] IS NULL OR id = ANY($1)) AND ($2::text = '' OR pipeline = $2)
RETURNING id
"""

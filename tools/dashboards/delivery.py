"""Delivery and faults: what is missing, what was put aside, and what stands in the way."""

from __future__ import annotations

from tools.dashboards.panels import (
    COUNT,
    NAMESPACE,
    PER_SECOND,
    PIPELINE,
    PIPELINES,
    RATIO,
    SECONDS,
    Board,
    Row,
    by,
    graph,
    quantile,
    rare,
    rose,
    stat,
    within_hour,
)

_BEHIND = " or ".join(f"feedmill_{each}_lag_seconds{{{PIPELINE}}}" for each in ("distributor", "processor"))
_GAPS = f"max by (namespace, feedmill_dev_pipeline, channel) (feedmill_database_open_gaps{{{PIPELINE}}})"
_LETTERS = f"sum(max by (namespace, feedmill_dev_pipeline) (feedmill_database_dead_letters{{{PIPELINE}}}))"

BOARD = Board(
    "delivery",
    "Feedmill / Delivery and faults",
    "What is missing or was put aside, what repaired it, and which server or link stood in the way.",
    (NAMESPACE, PIPELINES),
    (
        Row(
            "Now",
            (
                stat("Open gaps", "Gap rows that nothing has closed yet.", COUNT, f"sum({_GAPS})", none="none"),
                stat("Dead letters", "Kept in the database, counted up to 10,000.", COUNT, _LETTERS),
                stat(
                    "Shed in an hour",
                    "Frames given up since memory and spill were full. Each range is a gap row.",
                    COUNT,
                    within_hour("", "feedmill_receiver_shed_frames_total", PIPELINE),
                ),
                stat(
                    "Given up in an hour",
                    "Missing trades that the exchange no longer offers.",
                    COUNT,
                    within_hour("", "feedmill_distributor_given_up_trades_total", PIPELINE),
                ),
                stat(
                    "Servers that answer",
                    "Redis and PostgreSQL, as each processor sees them.",
                    RATIO,
                    f"avg(feedmill_processor_server_up{{{PIPELINE}}} >= 0)",  # Not NaN, of one that has no shard.
                ),
                stat(
                    "Furthest behind",
                    "Of all services.",
                    SECONDS,
                    f"max({_BEHIND})",
                ),
            ),
        ),
        Row(
            "Missing",
            (
                rare(
                    "Gaps opened",
                    "Within an hour, by cause.",
                    COUNT,
                    (rose("channel, cause", "feedmill_distributor_gaps_total", PIPELINE), "{{channel}} {{cause}}"),
                ),
                rare(
                    "Gaps that are open",
                    "In the database, by channel.",
                    COUNT,
                    (
                        _GAPS,
                        "{{namespace}}/{{feedmill_dev_pipeline}} {{channel}}",
                    ),
                ),
                graph(
                    "Trades backfilled",
                    "Missing ones that came by REST, and those that the exchange no longer offers, within an hour.",
                    COUNT,
                    (
                        within_hour("feedmill_dev_feed", "feedmill_distributor_backfilled_trades_total", PIPELINE),
                        "{{feedmill_dev_feed}}",
                    ),
                    (
                        within_hour("feedmill_dev_feed", "feedmill_distributor_given_up_trades_total", PIPELINE),
                        "{{feedmill_dev_feed}} given up",
                    ),
                ),
                graph(
                    "Shed",
                    "Frames a second that were given up.",
                    PER_SECOND,
                    (by("feedmill_dev_feed", "feedmill_receiver_shed_frames_total", PIPELINE), "{{feedmill_dev_feed}}"),
                ),
                graph(
                    "Damaged",
                    "Batches of spills that could not be read, within an hour.",
                    COUNT,
                    (
                        within_hour("feedmill_dev_feed", "feedmill_receiver_spill_damaged_batches_total", PIPELINE),
                        "{{feedmill_dev_feed}}",
                    ),
                ),
                graph(
                    "Lost by Redis",
                    "Within an hour: sessions it forgot, batches sent again, commits gone before they were stored.",
                    COUNT,
                    (within_hour("", "feedmill_receiver_sessions_lost_total", PIPELINE), "sessions"),
                    (within_hour("", "feedmill_receiver_rewinds_total", PIPELINE), "batches sent again"),
                    (within_hour("", "feedmill_processor_lost_commits_total", PIPELINE), "commits"),
                ),
            ),
        ),
        Row(
            "Put aside",
            (
                rare(
                    "Dead letters of distributors",
                    "Frames that could not be read, within an hour, by reason.",
                    COUNT,
                    (
                        rose("feedmill_dev_feed, reason", "feedmill_distributor_dead_letters_total", PIPELINE),
                        "{{feedmill_dev_feed}} {{reason}}",
                    ),
                ),
                rare(
                    "Dead letters of processors",
                    "Events that could not be stored, within an hour, by reason.",
                    COUNT,
                    (rose("reason", "feedmill_processor_dead_letters_total", PIPELINE), "{{reason}}"),
                ),
                graph(
                    "Doubles",
                    "Rows that were there already, a second: what came twice and is stored once.",
                    PER_SECOND,
                    (by("table", "feedmill_processor_duplicates_total", PIPELINE), "{{table}}"),
                ),
                graph(
                    "Candles",
                    "Proven complete, a second.",
                    PER_SECOND,
                    (by("interval", "feedmill_processor_candles_complete_total", PIPELINE), "{{interval}}"),
                ),
                graph(
                    "Candles compared",
                    "With the exchange's own, within an hour.",
                    COUNT,
                    (
                        rose("interval, agrees", "feedmill_processor_candles_compared_total", PIPELINE),
                        "{{interval}}, agrees: {{agrees}}",
                    ),
                ),
            ),
        ),
        Row(
            "Servers",
            (
                graph(
                    "Breakers",
                    "0 closed, 1 half-open, 2 open.",
                    COUNT,
                    (f"max by (pod) (feedmill_receiver_breaker_state{{{PIPELINE}}})", "{{pod}} Redis"),
                    (f"max by (pod, server) (feedmill_processor_breaker_state{{{PIPELINE}}})", "{{pod}} {{server}}"),
                ),
                graph(
                    "Answers",
                    "1 where the server answered last time.",
                    COUNT,
                    (f"min by (pod, server) (feedmill_processor_server_up{{{PIPELINE}}})", "{{pod}} {{server}}"),
                ),
                rare(
                    "Sessions that failed",
                    "Of processors, within an hour, by server.",
                    COUNT,
                    (rose("server", "feedmill_processor_failures_total", PIPELINE), "{{server}}"),
                ),
                rare(
                    "Appends that failed",
                    "Of receivers, within an hour, by the error's code.",
                    COUNT,
                    (rose("code", "feedmill_receiver_append_failures_total", PIPELINE), "{{code}}"),
                ),
                graph(
                    "Checkpoints loaded",
                    "Within an hour, by cause: a distributor begins anew with what Redis has.",
                    COUNT,
                    (rose("why", "feedmill_distributor_reloads_total", PIPELINE), "{{why}}"),
                ),
                graph(
                    "Transactions",
                    "Time of one.",
                    SECONDS,
                    (quantile(0.5, "", "feedmill_processor_commit_seconds", PIPELINE), "p50"),
                    (quantile(0.99, "", "feedmill_processor_commit_seconds", PIPELINE), "p99"),
                ),
                graph(
                    "Rows of a transaction",
                    "Half of them have at most so many.",
                    COUNT,
                    (quantile(0.5, "", "feedmill_processor_batch_rows", PIPELINE), "p50"),
                    (quantile(0.99, "", "feedmill_processor_batch_rows", PIPELINE), "p99"),
                ),
                graph(
                    "Redis",
                    "Share of its maxmemory that is used.",
                    RATIO,
                    (f"max by (namespace) (feedmill_distributor_redis_memory_ratio{{{PIPELINE}}})", "{{namespace}}"),
                ),
                graph(
                    "Commits that wait",
                    "In the events streams.",
                    COUNT,
                    (f"max by (shard) (feedmill_processor_lag_commits{{{PIPELINE}}})", "{{shard}}"),
                ),
            ),
        ),
    ),
)

"""Overview: is everything alright, how much flows, how late is it."""

from __future__ import annotations

from tools.dashboards.panels import (
    BYTES,
    COUNT,
    NAMESPACE,
    OURS,
    PER_SECOND,
    PIPELINE,
    PIPELINES,
    RATE,
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
    table,
)

_EXCHANGE = "feedmill_processor_exchange_to_commit_seconds"
_RECEIVE = "feedmill_processor_receive_to_commit_seconds"
_FIRING = 'ALERTS{alertname=~"Feedmill.*", alertstate="firing", namespace=~"$namespace"}'

BOARD = Board(
    "overview",
    "Feedmill / Overview",
    "Is everything alright, how much flows, and how late is it?",
    (NAMESPACE, PIPELINES),
    (
        Row(
            "Now",
            (
                stat(
                    "Feeds that capture",
                    "Feeds with an open connection to their exchange.",
                    COUNT,
                    f"count(sum by (namespace, feedmill_dev_feed) (feedmill_receiver_connections{{{PIPELINE}}}) > 0)",
                    none="none",
                ),
                stat(
                    "Pods that answer",
                    "Processes that the last scrape reached.",
                    COUNT,
                    f"count(feedmill_process_loop_lag_max_seconds{{{PIPELINE}}})",
                ),
                stat(
                    "Messages",
                    "Frames captured a second.",
                    PER_SECOND,
                    f"sum(rate(feedmill_receiver_frames_total{{{PIPELINE}}}[$__rate_interval]))",
                ),
                stat(
                    "Rows stored",
                    "Rows a second, without those that were there already.",
                    PER_SECOND,
                    f"sum(rate(feedmill_processor_rows_total{{{PIPELINE}}}[$__rate_interval]))",
                ),
                stat(
                    "Exchange to commit, p99",
                    "99 of 100 events are stored within this time of the exchange's own.",
                    SECONDS,
                    quantile(0.99, "", _EXCHANGE, PIPELINE),
                ),
                stat("Alerts", "Alerts of Feedmill that fire.", COUNT, f"count({_FIRING})", none="none"),
            ),
        ),
        Row(
            "Flow",
            (
                graph(
                    "Captured",
                    "Frames a second.",
                    PER_SECOND,
                    (by("feedmill_dev_feed", "feedmill_receiver_frames_total", PIPELINE), "{{feedmill_dev_feed}}"),
                ),
                graph(
                    "Dispatched",
                    "Events a second, by type.",
                    PER_SECOND,
                    (by("type", "feedmill_distributor_events_total", PIPELINE), "{{type}}"),
                ),
                graph(
                    "Stored",
                    "Rows a second, by table.",
                    PER_SECOND,
                    (by("table", "feedmill_processor_rows_total", PIPELINE), "{{table}}"),
                ),
            ),
        ),
        Row(
            "Delay",
            (
                graph(
                    "Exchange to commit",
                    "From the exchange's time to the row. What the exchange's clock is off counts too.",
                    SECONDS,
                    (quantile(0.5, "exchange, market", _EXCHANGE, PIPELINE), "{{exchange}} {{market}} p50"),
                    (quantile(0.99, "exchange, market", _EXCHANGE, PIPELINE), "{{exchange}} {{market}} p99"),
                ),
                graph(
                    "Socket to commit",
                    "From receiving to the row: what Feedmill itself takes.",
                    SECONDS,
                    (quantile(0.5, "exchange, market", _RECEIVE, PIPELINE), "{{exchange}} {{market}} p50"),
                    (quantile(0.99, "exchange, market", _RECEIVE, PIPELINE), "{{exchange}} {{market}} p99"),
                ),
                graph(
                    "Behind",
                    "Age of the oldest that a service has not handled yet.",
                    SECONDS,
                    (
                        f"max by (feedmill_dev_feed) (feedmill_distributor_lag_seconds{{{PIPELINE}}})",
                        "distributor {{feedmill_dev_feed}}",
                    ),
                    (f"max by (shard) (feedmill_processor_lag_seconds{{{PIPELINE}}})", "processor {{shard}}"),
                ),
            ),
        ),
        Row(
            "Room",
            (
                graph(
                    "Redis",
                    "Share of its maxmemory that is used; 0 where none is set.",
                    RATIO,
                    (f"max by (namespace) (feedmill_distributor_redis_memory_ratio{{{PIPELINE}}})", "{{namespace}}"),
                ),
                graph(
                    "Database",
                    "Its size.",
                    BYTES,
                    (
                        f"max by (namespace, feedmill_dev_pipeline) (feedmill_database_size_bytes{{{PIPELINE}}})",
                        "{{namespace}}/{{feedmill_dev_pipeline}}",
                    ),
                ),
                graph(
                    "Spills",
                    "Bytes on the receivers' disks, and how many they may be.",
                    BYTES,
                    (
                        f"sum by (feedmill_dev_feed) (feedmill_receiver_spill_bytes{{{PIPELINE}}})",
                        "{{feedmill_dev_feed}}",
                    ),
                    (
                        f"sum by (feedmill_dev_feed) (feedmill_receiver_spill_limit_bytes{{{PIPELINE}}})",
                        "{{feedmill_dev_feed}}, at most",
                    ),
                ),
            ),
        ),
        Row(
            "Processes",
            (
                graph(
                    "CPU",
                    "Cores in use.",
                    COUNT,
                    (
                        "sum by (app_kubernetes_io_component)"
                        f" (rate(process_cpu_seconds_total{{{PIPELINE}}}[{RATE}]) {OURS})",
                        "{{app_kubernetes_io_component}}",
                    ),
                    stacked=True,
                ),
                graph(
                    "Memory",
                    "Resident.",
                    BYTES,
                    (
                        f"sum by (app_kubernetes_io_component) (process_resident_memory_bytes{{{PIPELINE}}} {OURS})",
                        "{{app_kubernetes_io_component}}",
                    ),
                    stacked=True,
                ),
                graph(
                    "Event loops",
                    "How late the latest timer of the last minute was.",
                    SECONDS,
                    (
                        f"max by (app_kubernetes_io_component) (feedmill_process_loop_lag_max_seconds{{{PIPELINE}}})",
                        "{{app_kubernetes_io_component}}",
                    ),
                ),
                graph(
                    "Started anew",
                    "How often a process began within an hour.",
                    COUNT,
                    (
                        "sum by (app_kubernetes_io_component)"
                        f" (changes(process_start_time_seconds{{{PIPELINE}}}[1h]) {OURS})",
                        "{{app_kubernetes_io_component}}",
                    ),
                ),
                rare(
                    "Configurations refused",
                    "Changed configurations that a process did not take up: it goes on with the former.",
                    COUNT,
                    (
                        rose("pod", "feedmill_config_reloads_total", f'{PIPELINE}, outcome!="applied"'),
                        "{{pod}}",
                    ),
                ),
                graph(
                    "Log lines dropped",
                    "Since nobody read the ones before.",
                    PER_SECOND,
                    (by("pod", "feedmill_process_dropped_log_lines_total", PIPELINE), "{{pod}}"),
                ),
                table("Alerts that fire", "Each has a page under docs/runbooks.", _FIRING, width=24, none="none"),
            ),
        ),
    ),
)

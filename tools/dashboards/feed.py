"""One feed: its connections, what it captures, where it waits, what its distributor makes of it."""

from __future__ import annotations

from tools.dashboards.panels import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    FEED,
    FLAG,
    NAMESPACE,
    ONE_FEED,
    PER_SECOND,
    PIPELINES,
    SECONDS,
    Board,
    Row,
    by,
    graph,
    quantile,
    rare,
    rose,
    stat,
)

BOARD = Board(
    "feed",
    "Feedmill / One feed",
    "Connections, capture, the way to Redis and the distributor of one feed.",
    (NAMESPACE, PIPELINES, ONE_FEED),
    (
        Row(
            "Now",
            (
                stat(
                    "Connections",
                    "Open ones, of all receivers.",
                    COUNT,
                    f"sum(feedmill_receiver_connections{{{FEED}}})",
                ),
                stat(
                    "Topics subscribed",
                    "Instrument and channel, acknowledged by the exchange.",
                    COUNT,
                    f'sum(feedmill_receiver_subscriptions{{{FEED}, state="active"}})',
                ),
                stat(
                    "Topics silent",
                    "Far beyond their own usual silences.",
                    COUNT,
                    f"sum(feedmill_receiver_silent_topics{{{FEED}}})",
                ),
                stat(
                    "Messages",
                    "A second.",
                    PER_SECOND,
                    f"sum(rate(feedmill_receiver_frames_total{{{FEED}}}[$__rate_interval]))",
                ),
                stat(
                    "Distributor behind",
                    "Age of the oldest batch that is not dispatched.",
                    SECONDS,
                    f"max(feedmill_distributor_lag_seconds{{{FEED}}})",
                ),
                stat(
                    "Books in order",
                    "Order books that follow without a gap.",
                    COUNT,
                    f'sum(feedmill_distributor_books{{{FEED}, state="valid"}})',
                ),
            ),
        ),
        Row(
            "Connections",
            (
                graph("Open", "By pod.", COUNT, (f"feedmill_receiver_connections{{{FEED}}}", "{{pod}}")),
                graph(
                    "Topics",
                    "By state.",
                    COUNT,
                    (f"sum by (state) (feedmill_receiver_subscriptions{{{FEED}}})", "{{state}}"),
                    stacked=True,
                ),
                graph(
                    "Attempts to connect",
                    "Within an hour, by what came of them.",
                    COUNT,
                    (rose("result", "feedmill_receiver_connects_total", FEED), "{{result}}"),
                ),
                rare(
                    "Connections that ended",
                    "Within an hour, by cause.",
                    COUNT,
                    (rose("cause", "feedmill_receiver_disconnects_total", FEED), "{{cause}}"),
                ),
                rare(
                    "Replaced",
                    "New before old, within an hour; late: the old one ended first.",
                    COUNT,
                    (rose("cause, result", "feedmill_receiver_renewals_total", FEED), "{{cause}}, {{result}}"),
                ),
                rare(
                    "Silent topics",
                    "By channel.",
                    COUNT,
                    (f"sum by (channel) (feedmill_receiver_silent_topics{{{FEED}}})", "{{channel}}"),
                ),
            ),
        ),
        Row(
            "Capture",
            (
                graph(
                    "Messages",
                    "A second, by pod.",
                    PER_SECOND,
                    (by("pod", "feedmill_receiver_frames_total", FEED), "{{pod}}"),
                ),
                graph(
                    "Bytes",
                    "Of batches as they go to Redis.",
                    BYTES_PER_SECOND,
                    (by("pod", "feedmill_receiver_packed_bytes_total", FEED), "{{pod}}"),
                ),
                graph(
                    "Append to Redis",
                    "Time of one append, sampled.",
                    SECONDS,
                    (quantile(0.5, "pod", "feedmill_receiver_append_seconds", FEED), "{{pod}} p50"),
                    (quantile(0.99, "pod", "feedmill_receiver_append_seconds", FEED), "{{pod}} p99"),
                ),
                graph(
                    "Held in memory",
                    "And how much may be.",
                    BYTES,
                    (f"feedmill_receiver_buffered_bytes{{{FEED}}}", "{{pod}}"),
                    (f"feedmill_receiver_budget_bytes{{{FEED}}}", "{{pod}}, at most"),
                ),
                graph(
                    "Not confirmed yet",
                    "Appended, and not known to be on Redis' disk; and not appended yet.",
                    BYTES,
                    (f"feedmill_receiver_unconfirmed_bytes{{{FEED}}}", "{{pod}} unconfirmed"),
                    (f"feedmill_receiver_unsent_bytes{{{FEED}}}", "{{pod}} unsent"),
                ),
                graph(
                    "Spill",
                    "Bytes on disk; 0 while Redis takes everything.",
                    BYTES,
                    (f"feedmill_receiver_spill_unsent_bytes{{{FEED}}}", "{{pod}} unsent"),
                    (f"feedmill_receiver_spill_bytes{{{FEED}}}", "{{pod}}"),
                ),
            ),
        ),
        Row(
            "REST",
            (
                graph(
                    "Requests",
                    "Within an hour, by kind and result.",
                    COUNT,
                    (rose("kind, result", "feedmill_receiver_rest_requests_total", FEED), "{{kind}} {{result}}"),
                ),
                graph(
                    "Commands",
                    "Of the distributors, within an hour, by what became of them.",
                    COUNT,
                    (rose("kind, result", "feedmill_receiver_commands_total", FEED), "{{kind}} {{result}}"),
                ),
                graph(
                    "Budgets",
                    "How long the exchange lets nothing through.",
                    SECONDS,
                    (f"max by (budget) (feedmill_receiver_budget_blocked_seconds{{{FEED}}})", "{{budget}}"),
                ),
            ),
        ),
        Row(
            "Distributor",
            (
                graph(
                    "Events",
                    "A second, by type.",
                    PER_SECOND,
                    (by("type", "feedmill_distributor_events_total", FEED), "{{type}}"),
                ),
                graph(
                    "Behind",
                    "Age of the oldest batch that is not dispatched.",
                    SECONDS,
                    (f"feedmill_distributor_lag_seconds{{{FEED}}}", "{{pod}}"),
                ),
                graph(
                    "Socket to events stream",
                    "From receiving to the commit.",
                    SECONDS,
                    (quantile(0.5, "", "feedmill_distributor_receive_to_dispatch_seconds", FEED), "p50"),
                    (quantile(0.99, "", "feedmill_distributor_receive_to_dispatch_seconds", FEED), "p99"),
                ),
                graph(
                    "Commit",
                    "Time of one.",
                    SECONDS,
                    (quantile(0.5, "", "feedmill_distributor_commit_seconds", FEED), "p50"),
                    (quantile(0.99, "", "feedmill_distributor_commit_seconds", FEED), "p99"),
                ),
                graph(
                    "Books",
                    "By state.",
                    COUNT,
                    (f"sum by (state) (feedmill_distributor_books{{{FEED}}})", "{{state}}"),
                    stacked=True,
                ),
                graph(
                    "Doubles",
                    "Events and frames that were known already, a second: what further replicas bring.",
                    PER_SECOND,
                    (by("pod", "feedmill_distributor_duplicates_total", FEED), "{{pod}}"),
                ),
                graph(
                    "Sessions",
                    "Of receivers, that are known.",
                    COUNT,
                    (f"feedmill_distributor_sessions{{{FEED}}}", "{{pod}}"),
                ),
                graph(
                    "Backfill",
                    "Pages of trades asked for, or to be asked for again.",
                    COUNT,
                    (f"sum(feedmill_distributor_backfill_pages{{{FEED}}})", "pages"),
                ),
                graph(
                    "Held back",
                    "Yes while Redis is too full to add events.",
                    FLAG,
                    (f"max by (pod) (feedmill_distributor_held_back{{{FEED}}})", "{{pod}}"),
                ),
            ),
        ),
    ),
)

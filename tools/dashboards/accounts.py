"""Accounts: whether they are listened to, what comes of them, and how late it is stored."""

from __future__ import annotations

from tools.dashboards.panels import (
    COUNT,
    NAMESPACE,
    PER_SECOND,
    PIPELINE,
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
    within_hour,
)

_LATENCY = "feedmill_account_receive_to_commit_seconds"

BOARD = Board(
    "accounts",
    "Feedmill / Accounts",
    "Whether accounts are listened to, and how soon their events are stored. `feedmill accounts list` names them.",
    (NAMESPACE, PIPELINES),
    (
        Row(
            "Now",
            (
                stat("Accounts", "That some member works on.", COUNT, f"sum(feedmill_account_accounts{{{PIPELINE}}})"),
                stat(
                    "Listened to",
                    "And as the exchange has them.",
                    COUNT,
                    f'sum(feedmill_account_accounts{{{PIPELINE}, state="listening"}})',
                    none="none",
                ),
                stat(
                    "Refused",
                    "Only their users can help.",
                    COUNT,
                    f'sum(feedmill_account_accounts{{{PIPELINE}, state="refused"}})',
                    none="none",
                ),
                stat(
                    "Members",
                    "Pods of the pool that hold accounts.",
                    COUNT,
                    f"count(feedmill_account_slots_held{{{PIPELINE}}} > 0)",
                ),
                stat(
                    "Fills",
                    "A minute.",
                    COUNT,
                    f"sum(rate(feedmill_account_fills_total{{{PIPELINE}}}[$__rate_interval])) * 60",
                ),
                stat(
                    "Socket to commit, p99",
                    "Of events that came by the stream.",
                    SECONDS,
                    quantile(0.99, "", _LATENCY, PIPELINE),
                ),
            ),
        ),
        Row(
            "Listening",
            (
                graph(
                    "States",
                    "Accounts, by state.",
                    COUNT,
                    (f"sum by (state) (feedmill_account_accounts{{{PIPELINE}}})", "{{state}}"),
                    stacked=True,
                ),
                graph(
                    "Exchanges",
                    "Accounts, by exchange.",
                    COUNT,
                    (f"sum by (exchange, market) (feedmill_account_accounts{{{PIPELINE}}})", "{{exchange}} {{market}}"),
                    stacked=True,
                ),
                graph(
                    "Spread",
                    "Slots of accounts, by member.",
                    COUNT,
                    (f"feedmill_account_slots_held{{{PIPELINE}}}", "{{pod}}"),
                    stacked=True,
                ),
                graph(
                    "Keys",
                    "Accounts, by the verdict on their keys.",
                    COUNT,
                    (f"sum by (verdict) (feedmill_account_keys{{{PIPELINE}}})", "{{verdict}}"),
                ),
                graph(
                    "Keys asked about",
                    "Within an hour, by verdict.",
                    COUNT,
                    (rose("verdict", "feedmill_account_key_checks_total", PIPELINE), "{{verdict}}"),
                ),
                rare(
                    "Gaps",
                    "That opened within an hour, by cause. Each is closed by a reconciliation.",
                    COUNT,
                    (rose("cause", "feedmill_account_gaps_total", PIPELINE), "{{cause}}"),
                ),
            ),
        ),
        Row(
            "Events",
            (
                graph(
                    "Fills",
                    "A second: by the stream, and by REST after a gap.",
                    PER_SECOND,
                    (by("source", "feedmill_account_fills_total", PIPELINE), "{{source}}"),
                ),
                graph(
                    "Transactions",
                    "A second.",
                    PER_SECOND,
                    (by("pod", "feedmill_account_commits_total", PIPELINE), "{{pod}}"),
                ),
                graph(
                    "Socket to commit",
                    "Of events that came by the stream.",
                    SECONDS,
                    (quantile(0.5, "exchange, market", _LATENCY, PIPELINE), "{{exchange}} {{market}} p50"),
                    (quantile(0.99, "exchange, market", _LATENCY, PIPELINE), "{{exchange}} {{market}} p99"),
                ),
                graph(
                    "Dead letters",
                    "Private frames that could not be read, within an hour.",
                    COUNT,
                    (within_hour("", "feedmill_account_dead_letters_total", PIPELINE), "all"),
                ),
            ),
        ),
    ),
)

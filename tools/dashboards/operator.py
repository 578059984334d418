"""The operator: does one work, does it hear, how long does it take, what does it ask of the API server."""

from __future__ import annotations

from tools.dashboards.panels import (
    BYTES,
    COUNT,
    PER_SECOND,
    SECONDS,
    Board,
    Choice,
    Row,
    by,
    graph,
    quantile,
    rare,
    rose,
    stat,
)

_OF = 'namespace=~"$namespace"'
_PODS = f"and on (namespace, pod) feedmill_operator_leader{{{_OF}}}"
"""Keeps what is of a pod of the operator."""
_RECONCILE = "feedmill_operator_reconcile_seconds"

BOARD = Board(
    "operator",
    "Feedmill / Operator",
    "Whether an operator works and hears, how long its work takes, and what it asks of the API server.",
    (Choice("namespace", "namespace", "feedmill_operator_leader"),),
    (
        Row(
            "Now",
            (
                stat(
                    "Leaders",
                    "Operators that work; the others stand by.",
                    COUNT,
                    f"sum(feedmill_operator_leader{{{_OF}}})",
                ),
                stat(
                    "Objects kept", "In memory, of all kinds.", COUNT, f"sum(feedmill_operator_stored_objects{{{_OF}}})"
                ),
                stat(
                    "Waiting", "Objects that wait for a worker.", COUNT, f"sum(feedmill_operator_queue_depth{{{_OF}}})"
                ),
                stat(
                    "Heard",
                    "Since a watch last delivered the renewal of the operator's own Lease.",
                    SECONDS,
                    f"max(feedmill_operator_watch_probe_age_seconds{{{_OF}}})",
                ),
                stat("Reconcile, p99", "Time of one.", SECONDS, quantile(0.99, "", _RECONCILE, _OF)),
                stat(
                    "Requests",
                    "To the API server, a second.",
                    PER_SECOND,
                    f"sum(rate(feedmill_operator_api_requests_total{{{_OF}}}[$__rate_interval]))",
                ),
            ),
        ),
        Row(
            "Work",
            (
                graph(
                    "Reconciles",
                    "A second, by kind and result.",
                    PER_SECOND,
                    (by("kind, result", f"{_RECONCILE}_count", _OF), "{{kind}} {{result}}"),
                ),
                graph(
                    "Time of a reconcile",
                    "99 of 100 take at most this.",
                    SECONDS,
                    (quantile(0.99, "kind", _RECONCILE, _OF), "{{kind}}"),
                ),
                graph(
                    "Longest under way",
                    "Age of the oldest reconcile under way.",
                    SECONDS,
                    (f"max by (pod) (feedmill_operator_queue_longest_running_seconds{{{_OF}}})", "{{pod}}"),
                ),
                graph(
                    "Queue",
                    "Objects that wait for a worker, and those that are due later.",
                    COUNT,
                    (f"sum(feedmill_operator_queue_depth{{{_OF}}})", "waiting"),
                    (f"sum(feedmill_operator_queue_delayed{{{_OF}}})", "later"),
                ),
                graph(
                    "Time in the queue",
                    "99 of 100 wait at most this.",
                    SECONDS,
                    (quantile(0.99, "", "feedmill_operator_queue_wait_seconds", _OF), "p99"),
                ),
                graph(
                    "Put into the queue",
                    "A second, by kind, doubles left out.",
                    PER_SECOND,
                    (by("kind", "feedmill_operator_queue_adds_total", _OF), "{{kind}}"),
                ),
                rare(
                    "Tried again",
                    "Reconciles after an error, within an hour, by kind.",
                    COUNT,
                    (rose("kind", "feedmill_operator_queue_retries_total", _OF), "{{kind}}"),
                ),
                graph(
                    "Full look",
                    "Time of one resync.",
                    SECONDS,
                    (quantile(0.99, "", "feedmill_operator_resync_seconds", _OF), "p99"),
                ),
                graph(
                    "Objects kept",
                    "By kind.",
                    COUNT,
                    (f"sum by (kind) (feedmill_operator_stored_objects{{{_OF}}})", "{{kind}}"),
                ),
            ),
        ),
        Row(
            "API server",
            (
                graph(
                    "Requests",
                    "A second, by verb and code; 0 = no answer.",
                    PER_SECOND,
                    (by("verb, code", "feedmill_operator_api_requests_total", _OF), "{{verb}} {{code}}"),
                ),
                graph(
                    "Time of a request",
                    "99 of 100 are answered within this.",
                    SECONDS,
                    (quantile(0.99, "verb", "feedmill_operator_api_request_seconds", _OF), "{{verb}}"),
                ),
                graph(
                    "Waiting",
                    "Requests that wait for a free thread or are under way.",
                    COUNT,
                    (f"sum by (pod) (feedmill_operator_api_requests_waiting{{{_OF}}})", "{{pod}}"),
                ),
            ),
        ),
        Row(
            "Hearing",
            (
                graph(
                    "Events",
                    "That the watches delivered, a second, by kind.",
                    PER_SECOND,
                    (by("kind", "feedmill_operator_watch_events_total", _OF), "{{kind}}"),
                ),
                graph(
                    "Silence",
                    "Since a watch last delivered anything, and the renewal of its own Lease.",
                    SECONDS,
                    (f"max by (pod) (feedmill_operator_watch_age_seconds{{{_OF}}})", "{{pod}} anything"),
                    (f"max by (pod) (feedmill_operator_watch_probe_age_seconds{{{_OF}}})", "{{pod}} its Lease"),
                ),
                rare(
                    "Deaf",
                    "Within an hour: watching begun anew, by cause, and changes that only a full look found.",
                    COUNT,
                    (rose("cause", "feedmill_operator_watch_restarts_total", _OF), "{{cause}}"),
                    (rose("kind", "feedmill_operator_watch_missed_total", _OF), "missed: {{kind}}"),
                ),
                graph(
                    "Leases",
                    "Won and lost, within an hour.",
                    COUNT,
                    (rose("to", "feedmill_operator_lease_transitions_total", _OF), "{{to}}"),
                ),
                graph("Leader", "1 = this pod works.", COUNT, (f"feedmill_operator_leader{{{_OF}}}", "{{pod}}")),
            ),
        ),
        Row(
            "Processes",
            (
                graph(
                    "CPU",
                    "Cores in use.",
                    COUNT,
                    (f"rate(process_cpu_seconds_total{{{_OF}}}[$__rate_interval]) {_PODS}", "{{pod}}"),
                ),
                graph("Memory", "Resident.", BYTES, (f"process_resident_memory_bytes{{{_OF}}} {_PODS}", "{{pod}}")),
                graph(
                    "Event loop",
                    "How late the latest timer of the last minute was.",
                    SECONDS,
                    (f"feedmill_process_loop_lag_max_seconds{{{_OF}}} {_PODS}", "{{pod}}"),
                ),
            ),
        ),
    ),
)

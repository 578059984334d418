"""The operator's own metrics: ``feedmill_operator_<what>_<unit>``."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from feedmill.shared.metrics import Gauge

api_requests = Counter(
    "feedmill_operator_api_requests_total",
    "Requests to the API server, each try counted; code 0 = no answer.",
    ["verb", "kind", "code"],
)
api_seconds = Histogram(
    "feedmill_operator_api_request_seconds",
    "How long the API server took to answer one try.",
    ["verb"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
api_waiting = Gauge("feedmill_operator_api_requests_waiting", "Requests that wait for a free thread or are under way.")

queue_depth = Gauge("feedmill_operator_queue_depth", "Objects that wait for a worker.")
queue_delayed = Gauge("feedmill_operator_queue_delayed", "Objects that are due later (back-off, resync, re-check).")
queue_adds = Counter("feedmill_operator_queue_adds_total", "Objects put into the queue, doubles left out.", ["kind"])
queue_retries = Counter(
    "feedmill_operator_queue_retries_total", "Reconciles to be tried again after an error.", ["kind"]
)
queue_wait = Histogram(
    "feedmill_operator_queue_wait_seconds",
    "How long an object waited for a worker.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
queue_longest = Gauge("feedmill_operator_queue_longest_running_seconds", "Age of the oldest reconcile under way.")
reconcile_seconds = Histogram(
    "feedmill_operator_reconcile_seconds",
    "How long one reconcile took.",
    ["kind", "result"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)

watch_events = Counter("feedmill_operator_watch_events_total", "Events that the watches delivered.", ["kind"])
watch_restarts = Counter("feedmill_operator_watch_restarts_total", "Times the watching was started anew.", ["cause"])
watch_missed = Counter(
    "feedmill_operator_watch_missed_total", "Changes that a full resync found and no watch had told.", ["kind"]
)
watch_age = Gauge("feedmill_operator_watch_age_seconds", "Since a watch last delivered anything.")
probe_age = Gauge(
    "feedmill_operator_watch_probe_age_seconds", "Since a watch last delivered a renewal of the operator's own Lease."
)

stored = Gauge("feedmill_operator_stored_objects", "Objects kept in memory.", ["kind"])
resync_seconds = Histogram(
    "feedmill_operator_resync_seconds",
    "How long one full resync took.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
leader = Gauge("feedmill_operator_leader", "1 = this process works: it holds the Lease, or needs none.")
lease_transitions = Counter("feedmill_operator_lease_transitions_total", "Leases won and lost.", ["to"])

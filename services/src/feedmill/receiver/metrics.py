"""The receiver's Prometheus metrics. Counters of frames and batches move twice a second, not on the hot path."""

from __future__ import annotations

import math

from prometheus_client import Counter, Histogram

from feedmill.shared.metrics import Gauge

P = "feedmill_receiver"

frames = Counter(f"{P}_frames", "Frames packed into batches.")
bytes_packed = Counter(f"{P}_packed_bytes", "Bytes of sealed batches.")
batches = Counter(f"{P}_batches", "Batches sealed.")
appended = Counter(f"{P}_appended_batches", "Batches the server said it has.")
append_failures = Counter(f"{P}_append_failures", "Appends that failed, by error code.", ["code"])
append_seconds = Histogram(
    f"{P}_append_seconds",
    "Time of one append, sampled (every 16th).",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5),
)
rewinds = Counter(f"{P}_rewinds", "Times the server had forgotten batches that were still held.")
sessions_lost = Counter(f"{P}_sessions_lost", "Times the server had forgotten more than was held.")
in_flight = Gauge(f"{P}_in_flight_batches", "Appends without an answer (0 or 1).")
unconfirmed_bytes = Gauge(f"{P}_unconfirmed_bytes", "Bytes in memory, appended and not yet confirmed on disk.")
unsent_bytes = Gauge(f"{P}_unsent_bytes", "Bytes of batches not yet sent, in memory and on disk.")
buffered_bytes = Gauge(f"{P}_buffered_bytes", "Bytes held in memory.")
budget_bytes = Gauge(f"{P}_budget_bytes", "Bytes that may be held in memory.")
renewals = Counter(
    f"{P}_renewals", "Connections replaced, new before old, by cause (planned, announced, moved) and result (ok, late)."
    " Late: the old one ended first.", ["cause", "result"],
)  # fmt: skip
connects = Counter(f"{P}_connects", "Connection attempts, by result.", ["result"])
disconnects = Counter(f"{P}_disconnects", "Connections that ended, by cause.", ["cause"])
subscriptions = Gauge(f"{P}_subscriptions", "Topics, by state.", ["state"])
silent_topics = Gauge(f"{P}_silent_topics", "Topics silent far beyond their own usual silences.", ["channel"])
asked_anew = Counter(f"{P}_asked_anew_topics", "Topics subscribed again since they fell silent.")
rejected = Counter(f"{P}_rejected_topics", "Topics the venue refused or never acknowledged.")
connections = Gauge(f"{P}_connections", "Open connections; NaN in an account receiver, which counts accounts.")
connections.set(math.nan)
paused_seconds = Counter(f"{P}_paused_seconds", "Time reading rested because memory was used up.")
breaker_state = Gauge(f"{P}_breaker_state", "Breaker around Redis: 0 closed, 1 half-open, 2 open.")
aof_confirmed = Gauge(f"{P}_aof_confirms", "1 when WAITAOF confirms, 0 when acknowledged counts as confirmed.")
replicas_missing = Gauge(f"{P}_confirm_replicas_missing", "Replicas asked for that do not confirm.")
rest_requests = Counter(f"{P}_rest_requests", "REST requests, by kind and result.", ["kind", "result"])
fleet_members = Gauge(f"{P}_fleet_members", "Receivers that share this one's budgets.")
fleet_alone = Gauge(f"{P}_fleet_alone", "1 while Redis is away and budgets are this receiver's own share.")
budget_blocked = Gauge(f"{P}_budget_blocked_seconds", "How long the venue lets nothing through, by budget.", ["budget"])
commands = Counter(f"{P}_commands", "Commands read, by kind and what became of them.", ["kind", "result"])
oversized = Counter(f"{P}_oversized_messages", "Messages above the size bound: the connection was ended.")

spill_state = Gauge(
    f"{P}_spill_state", "0 not in use, 1 batches are on disk, 2 nothing more can be written, 3 no folder."
)
spill_bytes = Gauge(f"{P}_spill_bytes", "Bytes of the spill's segments.")
spill_limit = Gauge(f"{P}_spill_limit_bytes", "Bytes that the spill's segments may have.")
spill_segments = Gauge(f"{P}_spill_segments", "Segments there are.")
spill_unsent = Gauge(f"{P}_spill_unsent_bytes", "Bytes of batches on disk that Redis does not have.")
spill_oldest = Gauge(f"{P}_spill_oldest_seconds", "Age of the oldest segment, 0 when there is none.")
spill_written = Counter(f"{P}_spill_written_bytes", "Bytes written to the spill.")
spill_damaged = Counter(f"{P}_spill_damaged_batches", "Batches of the spill that could not be read: gaps.")
shed_frames = Counter(f"{P}_shed_frames", "Frames given up because memory and spill were full: gaps.")
shed_bytes = Counter(f"{P}_shed_bytes", "Bytes of frames given up.")

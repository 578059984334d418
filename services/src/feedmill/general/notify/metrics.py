"""Metrics of the notifier."""

from __future__ import annotations

import math

from prometheus_client import Counter

from feedmill.shared.metrics import Gauge

messages = Counter(
    "feedmill_notify_messages_total", "Messages, by what became of them: sent, limited, away, refused.", ["outcome"]
)
notices = Counter("feedmill_notify_notices_total", "Notices told, by kind; several may be in one message.", ["kind"])
dropped = Counter("feedmill_notify_dropped_total", "Notices dropped, since too many waited for PostgreSQL.")
waiting = Gauge("feedmill_notify_waiting_notices", "Notices that wait in the outbox.")
oldest = Gauge("feedmill_notify_oldest_waiting_seconds", "Age of the oldest of them, quiet hours not counted out.")
blocked = Gauge("feedmill_notify_blocked", "1 while Telegram refuses the token or the chat.")
last_sent = Gauge("feedmill_notify_last_sent_timestamp_seconds", "When a message was last sent; NaN before.")
last_sent.set(math.nan)
states = Gauge("feedmill_notify_active_states", "What is wrong now and was told, by kind.", ["kind"])
looked_at = Gauge("feedmill_notify_processes", "Processes that answered the last look.")

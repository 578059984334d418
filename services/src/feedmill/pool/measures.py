"""Metrics of the pool, and the figures behind ``/health``. No label holds an account's name: there may be thousands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Any

from prometheus_client import Counter, Histogram

from feedmill.processor.accounts.store import AccountStore, Batch
from feedmill.shared.account_events import AccountFlag
from feedmill.shared.clock import now_ns
from feedmill.shared.latency import Latencies
from feedmill.shared.metrics import LATENCY_BUCKETS, Gauge

accounts = Gauge("feedmill_account_accounts", "Accounts this member works on.", ["exchange", "market", "state"])
slots_held = Gauge("feedmill_account_slots_held", "Slots of accounts this member holds.")
commits = Counter("feedmill_account_commits_total", "Transactions that stored events of an account.")
fills = Counter("feedmill_account_fills_total", "Fills that came, by stream and by REST.", ["source"])
dead_letters = Counter("feedmill_account_dead_letters_total", "Private frames that could not be read.")
gaps = Counter("feedmill_account_gaps_total", "Gaps of accounts that opened, by cause.", ["cause"])
keys = Gauge("feedmill_account_keys", "Accounts that are to be listened to, by the verdict on their keys.", ["verdict"])
key_checks = Counter("feedmill_account_key_checks_total", "Readings of what a key may do, by verdict.", ["verdict"])
receive_to_commit = Histogram(
    "feedmill_account_receive_to_commit_seconds",
    "From the socket to the commit, of events that came by the stream (a sample).",
    ["exchange", "market"],
    buckets=LATENCY_BUCKETS,
)

SAMPLES = 20
"""Of a transaction, for the latencies."""


class Meter:
    """Counts what is stored."""

    def __init__(self) -> None:
        self.latencies = Latencies()

    def stored(self, store: AccountStore, batch: Batch) -> None:
        commits.inc()
        now = now_ns()
        exchange, market = store.venue
        recent = self.latencies.of(f"{exchange}/{market}", "receiveToCommit").current
        histogram = receive_to_commit.labels(exchange, market)
        for _, block in batch.blocks:
            dead_letters.inc(len(block.dead_letters))
            for gap in block.gaps:
                if gap.revision == 1:
                    gaps.labels(gap.cause).inc()
            for fill in block.fills:
                fills.labels("rest" if fill.flags & AccountFlag.REST else "stream").inc()
        events: Iterable[Any] = chain.from_iterable((*b.fills, *b.orders, *b.balances) for _, b in batch.blocks)
        live = (event for event in events if not event.flags & AccountFlag.REST)
        for event in islice(live, SAMPLES):
            age = max(0, now - event.receive_ns)
            recent.add(age)
            histogram.observe(age / 1e9)
        for each in batch.took:
            if each.receive is not None:
                histogram.observe(max(0.0, each.receive), each.span.exemplar)

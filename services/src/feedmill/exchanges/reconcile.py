"""Reconciling an account over REST after a gap: which request comes next, what its answer adds. A pure state machine.

The stream is listened to from before the first request on, so what happens from then on comes by it; what happened in
the gap comes by REST, much of it by both: natural keys make one of it. In order:

1. **account**: balances, positions, open orders;
2. **urgent**: orders and fills of the scopes where something may be missing, page by page;
   (none of this where 1. proves that nothing has happened);
3. **check**: every order's fills must add up to what is filled of it. Where they do not (REST lags behind the stream
   for a moment), they are asked for again after a rest, a few times; orders that no list had are asked for singly;
4. from here on the gap is closed (:meth:`Reconciliation.reconciled`); then the **sweep** through all other scopes, and
   a last check.

The caller makes what :meth:`next` gives, within the budget it has, in any number at once up to ``MAX_FLYING``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum

import msgspec

from feedmill.exchanges.account_base import AccountEvent, AccountRequest, Mend, Rejection
from feedmill.exchanges.account_rest import AccountRest, NoProgress, OrderKey
from feedmill.shared.account_events import AccountFlag, Balance, Fill, OrderUpdate, Position, Reconciled
from feedmill.shared.account_keys import canonical, order_key, order_rank, position_key

MAX_FLYING = 4
URGENT_PAGES = 20
"""Pages of one list that are read at once; the rest of a longer one belongs to the sweep."""
CHECKS = 6
"""How often fills that do not add up are asked for; then they are told as missing."""
CHECKED = 100
"""Orders whose fills are asked for in one check."""
MAX_PAUSE = 30.0
KEPT = 50_000
"""Orders whose fills are added up; of an account with a longer history the rest is told as not checked."""


class Stage(IntEnum):
    ACCOUNT = 1
    URGENT = 2
    CHECK = 3
    SWEEP = 4
    LAST_CHECK = 5
    DONE = 6


@dataclass(frozen=True, slots=True)
class Asked:
    """A request given out: hand it back with its answer."""

    number: int
    request: AccountRequest
    page: int = 1


class Reconciliation:
    """``rest`` holds what is known; ``gap_id`` is empty for one by the timer; ``sweep`` False ends it before that.

    ``spare``: an account in which nothing has happened is not swept; not while an earlier gap is still to be swept for.
    """

    def __init__(
        self, rest: AccountRest, gap_id: str, started_ns: int, *, sweep: bool = True, spare: bool = False
    ) -> None:
        self._rest = rest
        self._gap_id = gap_id
        self._started_ns = started_ns
        self._sweep = sweep
        self._spare = spare
        self.stage = Stage.ACCOUNT
        self.pause = 0.0
        """Seconds to wait before the next request; set when :meth:`next` gives none for that reason."""
        self._queue: deque[tuple[AccountRequest, int]] = deque((request, 1) for request in rest.first())
        self._later: deque[tuple[AccountRequest, int]] = deque()
        """Pages beyond URGENT_PAGES."""
        self._flying: dict[int, Asked] = {}
        self._numbers = 0
        self._weight = 0
        self._second = False
        self._told: list[AccountEvent] = []
        """What the first stage brought."""
        self._still_open: frozenset[OrderKey] = frozenset()
        self._read: dict[str, None] = {}
        self._orders: dict[OrderKey, OrderUpdate] = {}
        """The newest state of each order that REST or the stream told."""
        self._fills: dict[OrderKey, dict[str, Decimal]] = {
            key: {trade: Decimal(size) for trade, size in fills.items()}
            for key, fills in rest.known.open_orders.items()
        }
        self._heard: dict[tuple[str, ...], int] = {}
        """Asset or position -> how many requests had been given out when the stream last told of it."""
        self._checks = 0
        self._given_up: set[OrderKey] = set()
        self._refused: dict[str, str] = {}

    # -- what comes by the stream meanwhile

    def heard(self, event: AccountEvent) -> None:
        """An event of the stream, from before the first request on."""
        if isinstance(event, OrderUpdate | Fill):
            self._note(event)
        elif isinstance(event, Balance):
            self._heard[event.asset,] = self._numbers
        elif isinstance(event, Position):
            self._heard[position_key(event)] = self._numbers

    def _note(self, event: OrderUpdate | Fill) -> None:
        key = event.symbol, event.order_id
        if max(len(self._orders), len(self._fills)) >= KEPT and key not in self._orders and key not in self._fills:
            self._refused["check"] = f"only {KEPT} orders were compared with their fills"
            return
        if isinstance(event, Fill):
            self._fills.setdefault(key, {})[event.trade_id] = Decimal(event.size)
            return
        known = self._orders.get(key)
        if known is None or order_rank(event) >= order_rank(known):
            self._orders[key] = event

    # -- requests and answers

    def next(self, budget: int, *, sweep: bool = True) -> Asked | None:
        """The next request of at most ``budget`` weight. None: too little of it, enough under way, a pause, or done.

        ``sweep`` False: none of the sweep yet.
        """
        self.pause = 0.0
        while not self._queue and not self._flying and self.stage is not Stage.DONE:
            self._advance()
            if self.pause:
                return None
        if self.closed and not sweep:
            return None
        if not self._queue or len(self._flying) >= MAX_FLYING or self._queue[0][0].weight > budget:
            return None
        request, page = self._queue.popleft()
        self._numbers += 1
        self._weight += request.weight
        asked = self._flying[self._numbers] = Asked(self._numbers, request, page)
        return asked

    def answered(self, asked: Asked, events: Sequence[AccountEvent], *, more: bool = False) -> list[AccountEvent]:
        """What the mapper made of the answer (``events``, ``more``); returns what of it is to be emitted."""
        del self._flying[asked.number]
        request = asked.request
        if self.stage is Stage.ACCOUNT:
            self._told += events
            if request.kind == "open_orders":
                self._still_open |= {order_key(each) for each in events if isinstance(each, OrderUpdate)}
        made: list[AccountEvent] = []
        for event in events:
            if isinstance(event, OrderUpdate | Fill):
                self._note(event)
            if self._wanted(asked, event):
                made.append(event)
        if request.kind == "positions":
            made += self._flat(asked, events)
        try:
            following = self._rest.following(request, events, more=more)
        except NoProgress:
            self._refuse(request, "a full page of one id or time")
        else:
            if following is not None:
                # The pages of one list follow each other, before the next list is begun.
                urgent = self.stage is Stage.SWEEP or asked.page < URGENT_PAGES
                (self._queue if urgent else self._later).appendleft((following, asked.page + 1))
        return made

    def rejected(self, asked: Asked, why: Rejection) -> None:
        """What can be mended is asked for again (the caller mends and waits first); the rest is told as refused."""
        del self._flying[asked.number]
        if why.mend is Mend.REFUSED:
            self._refuse(asked.request, str(why))
        else:
            self._queue.appendleft((asked.request, asked.page))

    def _refuse(self, request: AccountRequest, reason: str) -> None:
        what = request.symbol or request.params.get("currency", "")
        self._refused[f"{request.kind} {what}".strip()] = reason

    def _wanted(self, asked: Asked, event: AccountEvent) -> bool:
        """Not what the stream told of since the request was made: the answer may be older, and the stream goes on."""
        if isinstance(event, Balance):
            if self._heard.get((event.asset,), -1) >= asked.number:
                return False
            # Of the hundreds of assets an account does not have, nothing is stored.
            return event.asset in self._rest.known.balances or canonical(event.total) != "0"
        if isinstance(event, Position):
            return self._heard.get(position_key(event), -1) < asked.number
        return True

    def _flat(self, asked: Asked, events: Sequence[AccountEvent]) -> list[AccountEvent]:
        """Positions that are not listed any more, as of just after they were last told."""
        told = {position_key(event) for event in events if isinstance(event, Position)}
        gone: list[AccountEvent] = []
        for key, known in self._rest.known.positions.items():
            if key not in told and self._heard.get(key, -1) < asked.number:
                at = known.venue_ns + 1 if known.venue_ns else 0
                gone.append(
                    msgspec.structs.replace(
                        known, size="0", entry_price="", mark_price="", unrealised="", venue_realised="", venue_ns=at,
                        receive_ns=self._started_ns, flags=int(AccountFlag.REST),
                    )
                )  # fmt: skip
        return gone

    # -- stages

    def _advance(self) -> None:
        if self.stage is Stage.ACCOUNT and not self._second:
            self._second = True
            if self._rest.untouched(self._told):
                self._told = []
                self.stage = Stage.SWEEP
                if self._sweep and not self._spare:
                    self._enter(self._rest.scopes())
                else:
                    self.stage = Stage.DONE
                return
            self._queue.extend((request, 1) for request in self._rest.second(self._told))
        elif self.stage is Stage.ACCOUNT:
            self.stage = Stage.URGENT
            self._enter(self._rest.urgent(self._told))
            self._told = []
        elif self.stage is Stage.URGENT:
            self.stage = Stage.CHECK
            self._checks = 0
        elif self.stage is Stage.CHECK:
            if self._check():
                self.stage = Stage.SWEEP
                self._queue, self._later = self._later, deque()
                if self._sweep:
                    self._enter([scope for scope in self._rest.scopes() if scope not in self._read])
        elif self.stage is Stage.SWEEP:
            self.stage = Stage.LAST_CHECK
            self._checks = 0
        elif self._check():
            self.stage = Stage.DONE

    def _enter(self, scopes: Sequence[str]) -> None:
        for scope in scopes:
            self._read[scope] = None
            self._queue.extend((request, 1) for request in self._rest.of_scope(scope, self._still_open))

    def _check(self) -> bool:
        """True: nothing is left to ask. Else requests stand in the queue, the second time after a pause."""
        short = self._short()
        lost = [key for key in self._rest.known.open_orders if key not in self._orders and key not in self._given_up]
        if self._checks == 0 and lost:
            for key in lost:
                request = self._rest.one_order(key)
                if request is not None:
                    self._queue.append((request, 1))
            if self._queue:
                self._checks = 1
                return False
        if self._checks > CHECKS or not short:
            for key in lost:
                self._refused[f"order {key[0]} {key[1]}"] = "the venue does not know it any more"
            self._given_up.update(lost, (order_key(order) for order, _ in short))
            for order, sum_ in short:
                self._refused[f"fills {order.symbol} {order.order_id}"] = f"{sum_} of {order.filled} found"
            return True
        self._checks += 1
        self._queue.extend((self._rest.fills_of(order), 1) for order, _ in short[:CHECKED])
        if self._checks > 1:
            self.pause = min(0.5 * 2.0**self._checks, MAX_PAUSE)
        return False

    def _short(self) -> list[tuple[OrderUpdate, Decimal]]:
        """Orders whose fills do not add up, with the sum of those that are there."""
        found = []
        for key, order in self._orders.items():
            total = sum(self._fills.get(key, {}).values(), Decimal(0))
            if total < Decimal(order.filled) and key not in self._given_up and not self._rest.settled(order):
                found.append((order, total))
        return found

    # -- what came of it

    @property
    def closed(self) -> bool:
        """All that may be missing was read: the gap is closed. What is left is the sweep."""
        return self.stage >= Stage.SWEEP

    @property
    def likely(self) -> bool:
        """What is asked for next in the sweep is where something has happened before."""
        return bool(self._queue) and self._queue[0][0].symbol in self._rest.known.last_fill

    def reconciled(self, finished_ns: int) -> Reconciled:
        """The marker to emit when :attr:`closed` has become true, and again when the sweep is done."""
        refused = [f"{what}: {why}" for what, why in self._refused.items()]
        counts = self._numbers, self._weight
        return Reconciled(self._gap_id, self._started_ns, finished_ns, *counts, list(self._read), refused)

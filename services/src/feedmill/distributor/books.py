"""One instrument's book through its life: bootstrap, changes, breaks, resync of this instrument alone. Pure.

One connection is primary. A valid book emits every change and a snapshot for each slot that ended. A break or the loss
of the connection opens a gap; it closes when a new snapshot made the book valid again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from feedmill.distributor.book import Book, Image, price_key
from feedmill.distributor.gaps import GapState, new_gap
from feedmill.distributor.output import Output
from feedmill.exchanges.base import BookRules, BookUpdate, Chain
from feedmill.shared.clock import MS, SECOND
from feedmill.shared.events import BookDelta

CHANNEL = "Book"
IDLE, SYNCING, VALID = "idle", "syncing", "valid"
MAX_BUFFERED = 4096
"""Changes kept while a snapshot is waited for; beyond that they are dropped and a newer snapshot is asked for."""
MAX_BUFFERED_LEVELS = 400_000
OTHERS = 256
"""Changes of a second connection kept, to go on with when the primary ends."""
ANSWER_NS = 10 * SECOND
"""A command without an answer for this long is issued anew."""
RENUMBERED_NS = 60 * SECOND
"""A number that falls back although its exchange time is this much later: the venue counts anew."""
FIRST_NS = 1 * SECOND
"""A snapshot is asked for with the first change after the subscription, or so long after it: one that is asked for
before may be older than that change, and a connection that ends as soon as it is subscribed costs no weight."""
RETRY_NS = 200 * MS
MAX_RETRY_NS = 60 * SECOND


@dataclass(frozen=True, slots=True)
class BookSettings:
    """What the manifest and the venue say of books."""

    shard: str
    rules: BookRules
    depth: int = 20
    slot_ns: int = SECOND


class BookMeta(msgspec.Struct, array_like=True):
    """The part of a book's state that is its checkpoint field. Levels are kept apart, as images."""

    symbol: str
    native: str
    status: str = IDLE
    source: str = ""
    """The primary connection."""
    image_pos: str = ""
    """Raw position of the image; empty = none is kept."""
    last_seq: int = -1
    """Of the book when it was last valid; -1 = never was."""
    last_ns: int = 0
    gaps: GapState = msgspec.field(default_factory=GapState)
    slot_ns: int = 0
    """End of the last slot whose snapshot was emitted."""


class BookTrack:
    """State machine of one book. Methods add to ``out`` what they bring about."""

    def __init__(self, meta: BookMeta, settings: BookSettings, out: Output) -> None:
        self.meta = meta
        self.settings = settings
        self.out = out
        self.book: Book | None = None
        self.dirty = False
        """Changed since its image was kept."""
        self.touched = False
        """``meta`` changed since the last commit."""
        self.imaged = 0.0
        """Monotonic time of the last image."""
        self.resyncs = 0
        self._buffer: deque[BookUpdate] = deque()
        self._buffered_levels = 0
        self._others: dict[str, deque[BookUpdate]] = {}
        self._command = ""
        self._due_ns = 0
        """When to ask (again); 0 = not at all."""
        self._reason = ""
        self._failures = 0
        self._lost_by = ""
        """Why the last primary ended."""
        if meta.status == SYNCING:
            self._ask_at(1, "the distributor started")

    @property
    def valid(self) -> bool:
        return self.meta.status == VALID

    @property
    def _rest(self) -> bool:
        return self.settings.rules.bootstrap == "rest"

    # sources
    def covered(self, source: str, now_ns: int) -> None:
        """A connection is subscribed to the book."""
        meta = self.meta
        if meta.source == source:
            if meta.status == IDLE:
                self._sync(now_ns, "subscribed")
            return
        if not meta.source:
            meta.source = source
            # One that goes on after a loss sends no snapshot by itself.
            self._sync(now_ns, self._lost_by if self._lost_by in ("shed", "redis_lost") else "subscribed")
        else:
            self._others.setdefault(source, deque(maxlen=OTHERS))

    def rest(self) -> None:
        """Nobody brings it and nobody wants it: ask for nothing."""
        self.meta.status, self.meta.source, self._due_ns, self.touched = IDLE, "", 0, True

    def lost(self, source: str, cause: str, detected_ns: int, others: list[str]) -> None:
        """A connection no longer brings the book, or has lost something of it; ``others`` still do."""
        self._others.pop(source, None)
        if source != self.meta.source:
            return
        self.meta.source, self._lost_by = "", cause
        self.touched = True
        if any(self._go_on_with(other, detected_ns) for other in others):
            return
        self._break("disconnected" if cause == "unsubscribed" else cause, detected_ns)
        if others:
            self._begin_with(others, cause, detected_ns)
        else:
            self.meta.status, self._due_ns = IDLE, 0

    def _go_on_with(self, other: str, now_ns: int) -> bool:
        """Make ``other`` primary without a break, where what was kept of it follows on."""
        if not self.valid or self.book is None:
            return False
        follows = self._following(self.book, self._others.get(other, ()))
        if follows is None:
            return False
        self._others.pop(other, None)
        # Updates of another source lead on from here: a restart must not begin before.
        self.meta.source, self.meta.image_pos = other, ""
        self._feed(follows, other, now_ns)
        return True

    def _leads(self, source: str, now_ns: int) -> bool:
        """Whether another source counts from now on: it is ahead by as much as is kept, so the one that did lags."""
        kept, book = self._others.get(source), self.book
        if kept is None or len(kept) < OTHERS or book is None or not self.valid:
            return False
        relation = _relate(self.settings.rules, book.seq, kept[0], fresh=book.fresh)
        return relation is Chain.APPLY and self._go_on_with(source, now_ns)

    def _following(self, book: Book, updates: Iterable[BookUpdate]) -> list[BookUpdate] | None:
        """The changes among ``updates`` that lead on from the book; None when something is missing between."""
        seq, fresh, rules = book.seq, book.fresh, self.settings.rules
        found = []
        for update in updates:
            if update.snapshot:
                relation = Chain.STALE if update.seq <= seq else Chain.BREAK
            else:
                relation = _relate(rules, seq, update, fresh=fresh)
            if relation is Chain.BREAK:
                return None
            if relation is Chain.APPLY:
                seq, fresh = update.seq, False
                found.append(update)
        return found

    def _begin_with(self, others: list[str], cause: str, now_ns: int) -> None:
        """Build the book anew from another source; from its own snapshot where that was kept (in-band venues)."""
        chosen, kept = others[0], []
        for other in others:
            found = _from_snapshot(self.settings.rules, self._others.get(other, ()))
            if found:
                chosen, kept = other, found
                break
        self._others.pop(chosen, None)
        self.meta.source = chosen
        self._sync(now_ns, cause)
        self._feed(kept, chosen, now_ns)

    def _feed(self, updates: list[BookUpdate], source: str, now_ns: int) -> None:
        for update in updates:
            try:
                self.update(update, source, now_ns)
            except ValueError:
                return  # The book is broken by it, and says so.

    # data
    def update(self, update: BookUpdate, source: str, now_ns: int) -> None:
        """A message of the stream. Raises ValueError when its levels cannot be read (the book is broken then)."""
        meta = self.meta
        if source != meta.source and not self._leads(source, now_ns):
            rebuilds = meta.status == SYNCING and update.snapshot and update.seq >= meta.last_seq
            if meta.source and not rebuilds:
                self._others.setdefault(source, deque(maxlen=OTHERS)).append(update)
                return
            self._others.pop(source, None)
            meta.source, self.touched = source, True  # Data proves the subscription.
            if not rebuilds:
                self._sync(now_ns, "data")
        if update.snapshot:
            self._inband(update, now_ns)
        elif meta.status == VALID:
            self._change(update, now_ns)
        elif self._rest:
            self._keep(update, now_ns)
        elif self._buffer:
            self._catch_up(update, now_ns)

    def _inband(self, snapshot: BookUpdate, now_ns: int) -> None:
        """A snapshot in the stream. One older than the book is that of a connection that lags behind."""
        meta, book = self.meta, self.book
        seq, at_ns = (book.seq, book.receive_ns) if book is not None else (meta.last_seq, meta.last_ns)
        if snapshot.seq < seq and snapshot.exchange_ns <= at_ns + RENUMBERED_NS:
            if book is None:
                self._clear_buffer()
                self._keep(snapshot, now_ns)
            return
        if book is not None and snapshot.seq != seq:
            self._break("sequence", snapshot.receive_ns)  # What lies between was not seen.
        self._rebuild(snapshot, [], now_ns)

    def _catch_up(self, update: BookUpdate, now_ns: int) -> None:
        """A change after a snapshot that is older than the book was: valid again when it has come as far."""
        rules, last = self.settings.rules, self._buffer[-1]
        relation = _relate(rules, last.seq, update, fresh=last.snapshot)
        if relation is Chain.BREAK:
            self._clear_buffer()
        elif relation is Chain.APPLY:
            self._keep(update, now_ns)
            if self._buffer and update.seq >= self.meta.last_seq:
                snapshot, *changes = self._buffer
                self._rebuild(snapshot, changes, now_ns)

    def _change(self, update: BookUpdate, now_ns: int) -> None:
        book, rules = self.book, self.settings.rules
        assert book is not None
        relation = _relate(rules, book.seq, update, fresh=book.fresh)
        if relation is Chain.STALE:
            if book.exchange_ns and update.exchange_ns > book.exchange_ns + RENUMBERED_NS:
                # Otherwise everything from now on would be taken for known.
                self._resync("sequence", f"numbers fell back to {update.seq}", update.receive_ns, now_ns)
            return
        if relation is Chain.BREAK:
            self._resync("sequence", f"{update.first_seq} does not follow {book.seq}", update.receive_ns, now_ns)
            if self._rest:
                self._keep(update, now_ns)
            return
        self._sample(book, update.exchange_ns)
        try:
            book.apply(update)
        except ValueError as error:
            self._resync("book", str(error), update.receive_ns, now_ns)
            raise
        self.dirty = True
        self.out.deltas.deltas.append(_delta(update))

    def _sample(self, book: Book, next_ns: int) -> None:
        """Before a change of a later slot: the state now is that of the slot that ended."""
        slot = self.settings.slot_ns
        if book.exchange_ns and next_ns // slot > book.exchange_ns // slot:
            end = (book.exchange_ns // slot + 1) * slot
            if end > self.meta.slot_ns:  # Times of the venue may fall back; a slot is told once.
                self.meta.slot_ns, self.touched = end, True
                self.out.events.books.append(book.snapshot(self.meta.symbol, end, self.settings.depth))

    def _keep(self, update: BookUpdate, now_ns: int) -> None:
        try:
            for levels in (update.bids, update.asks):
                for level in levels:
                    price_key(level[0])
        except ValueError:
            self._clear_buffer()  # Only a snapshot that is newer than this change is of use.
            raise
        if self._rest and self._reason == "subscribed" and not self._command:
            self._due_ns = min(self._due_ns, now_ns)
        self._buffer.append(update)
        self._buffered_levels += len(update.bids) + len(update.asks)
        if len(self._buffer) > MAX_BUFFERED or self._buffered_levels > MAX_BUFFERED_LEVELS:
            self._clear_buffer()
            self._ask_at(now_ns, "too many changes while waiting for a snapshot")

    def _clear_buffer(self) -> None:
        self._buffer.clear()
        self._buffered_levels = 0

    # resync
    def _resync(self, cause: str, reason: str, detected_ns: int, now_ns: int) -> None:
        self._break(cause, detected_ns)
        self._sync(now_ns, reason)

    def _break(self, cause: str, detected_ns: int) -> None:
        """The book is no longer the venue's: a gap opens after the last change applied."""
        meta = self.meta
        if meta.status == VALID and self.book is not None:
            meta.last_seq, meta.last_ns = self.book.seq, self.book.receive_ns
        self.book, self.dirty, meta.image_pos = None, False, ""
        self._clear_buffer()
        self.touched = True
        if meta.last_seq < 0:
            return  # It never was valid: there is nothing that it stopped being.
        gap = meta.gaps.open(
            new_gap(self.settings.shard, meta.symbol, CHANNEL, cause, meta.last_seq + 1, meta.last_ns, detected_ns)
        )
        if gap is not None:
            self.out.gap(gap)

    def _sync(self, now_ns: int, reason: str) -> None:
        self.meta.status = SYNCING
        self.touched = True
        self._failures = 0
        self._clear_buffer()
        # In-band: the snapshot comes by itself after a subscription; after a break it must be asked for. Where one
        # connection unsubscribed at our command, the others are about to do so too.
        first_comes_by_itself = not self._rest and reason in ("subscribed", "data", "unsubscribed")
        wait = ANSWER_NS if first_comes_by_itself else FIRST_NS if reason == "subscribed" else 0
        self._ask_at(now_ns + wait, reason)

    def _ask_at(self, due_ns: int, reason: str) -> None:
        self._due_ns, self._reason, self._command = due_ns, reason, ""

    def tick(self, now_ns: int) -> None:
        """Ask for what is due."""
        if not self._due_ns or now_ns < self._due_ns or self.meta.status != SYNCING:
            return
        self._ask("book_snapshot" if self._rest else "resubscribe", now_ns)
        self.resyncs += 1

    def again(self, living: list[str], now_ns: int) -> None:
        """Sessions began or ended: whichever had claimed the request may be gone."""
        if self._command and self._rest and self.meta.status == SYNCING:
            self._ask("book_snapshot", now_ns, self._command, living)

    def _ask(self, kind: str, now_ns: int, again: str = "", living: list[str] | None = None) -> None:
        meta, reason = self.meta, self._reason[:200]
        self._command = self.out.command(kind, meta.symbol, meta.native, CHANNEL, now_ns, reason, again, living)
        self._due_ns = now_ns + ANSWER_NS

    def failed(self, command: str, now_ns: int) -> None:
        """The receivers gave up on a command."""
        if command == self._command and self.meta.status == SYNCING:
            self._retry(now_ns, "the request failed")

    def _retry(self, now_ns: int, reason: str) -> None:
        self._failures += 1
        self._ask_at(now_ns + min(RETRY_NS << min(self._failures, 10), MAX_RETRY_NS), reason)

    def snapshot(self, snapshot: BookUpdate, now_ns: int) -> None:
        """A REST snapshot. Raises ValueError when it cannot be read."""
        if self.meta.status != SYNCING or not self._rest:
            return
        rules = self.settings.rules
        changes: list[BookUpdate] = []
        seq = snapshot.seq
        for place, update in enumerate(self._buffer):
            relation = _relate(rules, seq, update, fresh=not changes)
            if relation is Chain.APPLY:
                changes.append(update)
                seq = update.seq
            elif relation is Chain.BREAK:
                if changes:
                    # A change is missing among those kept: only what follows it is of use.
                    for _ in range(place):
                        dropped = self._buffer.popleft()
                        self._buffered_levels -= len(dropped.bids) + len(dropped.asks)
                self._retry(now_ns, f"snapshot {snapshot.seq} does not reach the changes from {update.first_seq} on")
                return
        if not changes and seq < self.meta.last_seq:
            self._retry(now_ns, f"snapshot {seq} is older than the book was at {self.meta.last_seq}")
            return
        self._rebuild(snapshot, changes, now_ns)

    def _rebuild(self, snapshot: BookUpdate, changes: list[BookUpdate], now_ns: int) -> None:
        meta = self.meta
        was_valid = self.valid
        try:
            book = Book(snapshot)
            for update in changes:
                book.apply(update)
        except ValueError:
            if was_valid:
                self._resync("book", "a snapshot cannot be read", snapshot.receive_ns, now_ns)
            else:
                self._retry(now_ns, "the snapshot cannot be read")
            raise
        self._clear_buffer()
        self.book, self.dirty, self.touched = book, True, True
        meta.status, meta.last_seq, meta.last_ns, meta.image_pos = VALID, book.seq, book.receive_ns, ""
        self._due_ns, self._command, self._failures = 0, "", 0
        if (gap := meta.gaps.current) is not None:
            to_seq = max(snapshot.seq, gap.from_seq - 1)
            closed = meta.gaps.close(to_seq, snapshot.receive_ns, f"snapshot:{snapshot.seq}")
            if closed is not None:
                self.out.gap(closed)
        self.out.deltas.deltas.append(book.image_delta(meta.symbol))

    # restart
    def restore(self, image: Image | None) -> None:
        """Begin again from an image (with it :meth:`replay` follows); without one the book is built anew."""
        if self.meta.status != VALID:
            return
        try:
            self.book = Book(image) if image is not None else None
        except ValueError:
            self.book = None
        if self.book is None:
            self._resync("redis_lost", "its image is gone", self.meta.last_ns, 1)

    def replay(self, update: BookUpdate, source: str) -> None:
        """Apply what was applied before the restart: emits nothing. A break is seen by the next live change.

        A snapshot that counted was followed by an image, so one that comes here did not count.
        """
        book = self.book
        if book is None or source != self.meta.source or not self.valid or update.snapshot:
            return
        if _relate(self.settings.rules, book.seq, update, fresh=book.fresh) is Chain.APPLY:
            book.apply(update)
            self.dirty = True

    def take_image(self, pos: str) -> bytes | None:
        """The image as of raw position ``pos``; None when the one kept still holds (only its position moved on)."""
        if not self.valid or self.book is None:
            return None
        self.touched = True
        meta = self.meta
        needed = self.dirty or not meta.image_pos
        meta.image_pos, meta.last_seq, meta.last_ns, self.dirty = pos, self.book.seq, self.book.receive_ns, False
        return msgspec.msgpack.encode(self.book.image()) if needed else None


def _relate(rules: BookRules, seq: int, update: BookUpdate, *, fresh: bool) -> Chain:
    """Relate a change to a book at ``seq``. What ends at or before it is contained, whatever the venue's rule for the
    first change after a snapshot says: applied again it would be told twice."""
    if update.seq <= seq:
        return Chain.STALE
    return rules.first(seq, update) if fresh else rules.next(seq, update)


def _from_snapshot(rules: BookRules, updates: Iterable[BookUpdate]) -> list[BookUpdate]:
    """The last snapshot among ``updates`` and its changes; empty when there is none or something is missing."""
    found: list[BookUpdate] = []
    seq = -1
    for update in updates:
        if update.snapshot:
            found, seq = [update], update.seq
        elif found:
            relation = _relate(rules, seq, update, fresh=len(found) == 1)
            if relation is Chain.BREAK:
                found = []
            elif relation is Chain.APPLY:
                found.append(update)
                seq = update.seq
    return found


def _delta(u: BookUpdate) -> BookDelta:
    return BookDelta(
        u.symbol, False, u.first_seq, u.seq, u.prev_seq, u.exchange_ns, u.receive_ns, u.bids, u.asks
    )  # fmt: skip

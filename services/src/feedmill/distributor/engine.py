"""Raw batches in, events out: decoding, arbitration and state of one shard. Pure: no I/O, no clock of its own.

The state is what the checkpoint holds; whatever was touched since the last :meth:`Engine.take` goes into the next
commit, and is gone with the memory when that commit does not come about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from feedmill import __version__
from feedmill.distributor import changes, checkpoint
from feedmill.distributor.backfill import Backfill
from feedmill.distributor.book import Image
from feedmill.distributor.books import BookMeta, BookTrack
from feedmill.distributor.checkpoint import Checkpoint
from feedmill.distributor.images import ImageSchedule
from feedmill.distributor.output import Output, Taken
from feedmill.distributor.quotes import Quotes
from feedmill.distributor.settings import DistributorSettings
from feedmill.distributor.sources import REMOVED, Sources, TopicKey, brought_until, key_of, source_of
from feedmill.distributor.traced import Mark, Origin, of_feed
from feedmill.distributor.trades import TradeTrack
from feedmill.distributor.unseen import NUMBERED, Unseen
from feedmill.distributor.venue_candles import VenueCandles, field_of
from feedmill.exchanges.base import Arbitration, BookUpdate, ChannelName, MapError, Mapper
from feedmill.shared import control, events
from feedmill.shared.clock import MS
from feedmill.shared.control import RestAnswer, TopicRef, decode_answer, decode_control
from feedmill.shared.events import Candle, DeadLetter, DeltaBlock, EventBlock, Gap, Instrument, Ticker, Trade
from feedmill.shared.frames import RawBatch, Run, RunKind, decode_batch
from feedmill.shared.redis.ids import id_of

FLOOR_EVERY = 0.25
"""Seconds between two looks at what of the raw stream is needed no longer."""
ASLEEP = 5.0
"""Seconds between two ticks after which this process, not the receivers, was silent."""
IN_ORDER = frozenset({"closed", "planned", "shutdown"})
"""Causes of a disconnection after which nothing can have been under way unnoticed."""
ASK_SINGLY = 10
"""Of so many new instruments each one's metadata is asked for by itself, of more by one request for all."""
_DETAIL = 300
_EVER = 2**63 - 1


class Engine:
    """One life of a distributor over one shard."""

    def __init__(
        self, settings: DistributorSettings, mapper: Mapper, state: Checkpoint, images: Mapping[str, bytes]
    ) -> None:
        self.settings = settings
        self.shard = str(settings.shard)
        self.out = Output()
        self.pos = state.pos
        self.en, self.eid = state.en, state.eid
        self._committed_pos = state.pos
        self._mapper = mapper
        self._trades = state.trades
        self.books = {symbol: BookTrack(meta, settings.books, self.out) for symbol, meta in state.books.items()}
        self.sources = Sources(self, state.sessions, state.batches)
        self._unseen = Unseen(self.shard, state.unseen)
        self._natives = dict(settings.natives)
        self.backfill = Backfill(
            self.shard, settings.trades_page, self._trades, state.fillings, self.out,
            lambda symbol: self._natives.get(symbol, symbol),
        )  # fmt: skip
        self._touched: dict[str, Any] = {}
        """Checkpoint field -> its state."""
        self._pending = {symbol: track for symbol, track in self._trades.items() if track.waiting}
        """Tracks with a hole that is not a gap yet."""
        by_time = settings.arbitration.get(ChannelName.TICKER) is Arbitration.PRIMARY
        self._quotes = Quotes(
            self.shard, state.tickers, self.out, self.sources, self._touched, self._begins, by_time=by_time
        )
        self._candles = VenueCandles(self.shard, state.candles, self.out, self.sources, self._touched, self._is_retired)
        self._now_ns = 0
        self._monotonic = 0.0
        self._images = ImageSchedule(settings.image_interval, settings.image_bytes_per_second)
        self._ticked = 0.0
        self._floored = 0.0
        self._in_order = False
        """Whether the record at hand ends connections in order."""
        self._floor = ""
        self._retired: set[TopicKey] = set()
        """Topics that ended because they are wanted no longer: what still trickles in of them begins nothing new."""
        self._deleted: set[str] = set()
        """Checkpoint fields to delete with the next commit."""
        self._dropped: set[str] = set()
        """Books whose image goes with the next commit."""
        self._expect(self.sources.refs())
        if settings.wanted is not None:
            self._forget_unwanted(settings.wanted, ended=settings.selected)
        for symbol, book in self.books.items():
            book.restore(_image(images.get(symbol)))
        self._handlers: dict[type, Callable[[Any, str], None]] = {
            Ticker: self._quotes.take,
            Candle: self._candles.take,
            BookUpdate: self._book,
            Instrument: self._instrument,
        }

    # restart
    def replay_from(self) -> str:
        """Raw position of the oldest image of a valid book: what follows it up to ``pos`` goes to :meth:`replay`."""
        found = [book.meta.image_pos for book in self.books.values() if book.valid and book.meta.image_pos]
        return min(found, key=id_of, default=self.pos)

    def replay(self, stream_id: str, payload: bytes) -> None:
        """Bring the books from their images to ``pos``; emits nothing."""
        try:
            batch = decode_batch(payload)
        except (msgspec.DecodeError, ValueError):
            return
        at = id_of(stream_id)
        behind = {s for s, book in self.books.items() if book.valid and id_of(book.meta.image_pos) < at}
        for run in batch.runs:
            if run.kind != RunKind.FRAMES:
                continue
            source = source_of(batch.session, run.conn)
            for receive_ns, frame in zip(run.times, run.frames, strict=False):
                try:
                    if not frame.isascii():
                        frame.decode()  # As in _frames: what was refused there was not applied.
                    for event in self._mapper.map(frame, receive_ns):
                        if type(event) is BookUpdate and event.symbol in behind:
                            self.books[event.symbol].replay(event, source)
                except Exception:  # noqa: S112
                    continue  # It is a dead letter already, whatever it was.

    # input
    def entry(self, stream_id: str, payload: bytes | None, now_ns: int, monotonic: float) -> None:
        """Handle one entry of the raw stream; ``payload`` None = it has no batch."""
        self._now_ns, self._monotonic = now_ns, monotonic
        self.pos = stream_id
        try:
            batch = decode_batch(payload or b"")
        except (msgspec.DecodeError, ValueError) as error:
            ms, number = id_of(stream_id)
            self._letter("raw", ms, number, 0, now_ns, "undecodable_batch", str(error), payload or b"")
            return
        at_ns = next((times[0] for run in batch.runs if (times := run.times)), now_ns)
        if not self.sources.batch(batch.session, batch.n, at_ns, monotonic):
            self.out.duplicates += sum(len(run.frames) for run in batch.runs)
            return
        before = Mark.of(self.out.events) if batch.trace else None
        index = 0
        latest = 0
        for run in batch.runs:
            if len(run.times) != len(run.frames):
                reason, detail = "undecodable_run", f"{len(run.times)} times for {len(run.frames)} records"
                payload = msgspec.msgpack.encode(run)
                self._letter(batch.session, batch.n, index, run.conn, at_ns, reason, detail, payload)
            elif run.kind == RunKind.FRAMES:
                self._frames(batch, run, index)
            elif run.kind == RunKind.CONTROL:
                self._control(batch, run, index)
            else:
                self._rest(batch, run, index)
            index += len(run.frames)
            if run.times:
                latest = run.times[-1]
        if latest and (self._pending or self._quotes.unsettled):
            self._expire(latest - self.settings.grace_ns)
        if before is not None:
            self._traced(batch.trace, batch, "", before)

    def _traced(self, parent: str, batch: RawBatch, command: str, before: Mark) -> None:
        origin = Origin(parent, self.pos, batch.session, batch.n, self._now_ns, command)
        self.out.trace(of_feed(origin, self.out.events, before))

    def _frames(self, batch: RawBatch, run: Run, base: int) -> None:
        out = self.out
        source = source_of(batch.session, run.conn)
        map_frame, trades, touched, handlers = self._mapper.map, self._trades, self._touched, self._handlers
        add = out.events.trades.append
        if not out.frames and run.times:
            out.oldest_ns = run.times[0]
        out.frames += len(run.frames)
        index = base - 1
        for receive_ns, frame in zip(run.times, run.frames, strict=True):
            index += 1
            try:
                if not frame.isascii():
                    frame.decode()  # Decoders do not look into fields that nobody reads: bad bytes there are bad too.
                for event in map_frame(frame, receive_ns):
                    if type(event) is Trade:
                        track = trades.get(event.symbol)
                        if track is not None and track.last.id + 1 == event.id:
                            track.last = event
                            touched["t:" + event.symbol] = track
                            add(event)
                        else:
                            self._trade(event, track)
                    else:
                        handlers[type(event)](event, source)
            except MapError as error:
                self._letter(batch.session, batch.n, index, run.conn, receive_ns, error.reason, error.detail, frame)
            except ValueError as error:
                self._letter(batch.session, batch.n, index, run.conn, receive_ns, "bad_value", str(error), frame)
            except Exception as error:
                # A fault of this code must not hold up the shard: the frame is kept to be driven again after the fix.
                what = f"{type(error).__name__}: {error}"
                self._letter(batch.session, batch.n, index, run.conn, receive_ns, "internal_error", what, frame)

    def _letter(
        self, session: str, n: int, index: int, conn: int, receive_ns: int, reason: str, detail: str, payload: bytes
    ) -> None:
        self.out.events.dead_letters.append(
            DeadLetter(session, n, index, conn, receive_ns, reason, detail[:_DETAIL], __version__, payload)
        )

    def _control(self, batch: RawBatch, run: Run, base: int) -> None:
        for index, (at_ns, payload) in enumerate(zip(run.times, run.frames, strict=True), base):
            try:
                record = decode_control(payload)
            except (msgspec.DecodeError, ValueError) as error:
                reason, detail = "undecodable_control", str(error)
                self._letter(batch.session, batch.n, index, run.conn, at_ns, reason, detail, payload)
                continue
            try:
                if isinstance(record, control.RestFailed):
                    book = self.books.get(record.symbol)
                    if book is not None:
                        book.failed(record.command, self._now_ns)
                    self.backfill.failed(record.command, record.symbol, record.status, self._now_ns)
                elif isinstance(record, control.Missing):
                    self._lacks(record)
                elif batch.session in self.sources.sessions:
                    if isinstance(record, control.Connected | control.Subscribing):
                        self._expect(record.topics)
                    self._in_order = _ends_in_order(record)
                    self.sources.apply(batch.session, record, at_ns)
                    if isinstance(record, control.Session | control.SessionEnd):
                        self._ask_again()
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                self._letter(batch.session, batch.n, index, run.conn, at_ns, "internal_error", what, payload)

    def _rest(self, batch: RawBatch, run: Run, base: int) -> None:
        for index, (at_ns, payload) in enumerate(zip(run.times, run.frames, strict=True), base):
            answer: RestAnswer | None = None
            try:
                answer = decode_answer(payload)
                before = Mark.of(self.out.events)
                self._answer(answer, at_ns)
                if answer.trace:
                    self._traced(answer.trace, batch, answer.command, before)
            except MapError as error:
                self._letter(batch.session, batch.n, index, run.conn, at_ns, error.reason, error.detail, payload)
            except (msgspec.DecodeError, ValueError) as error:
                reason = "undecodable_answer" if answer is None else "bad_value"
                self._letter(batch.session, batch.n, index, run.conn, at_ns, reason, str(error), payload)
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                self._letter(batch.session, batch.n, index, run.conn, at_ns, "internal_error", what, payload)
            else:
                continue
            if answer is not None:
                self.backfill.failed(answer.command, answer.symbol, answer.status, self._now_ns)

    def _answer(self, answer: RestAnswer, at_ns: int) -> None:
        found = self._mapper.map_rest(answer.kind, answer.symbol, answer.status, answer.body, at_ns)
        if answer.kind == "trades":
            self._backfilled(answer, [event for event in found if isinstance(event, Trade)])
            return
        for event in found:
            if isinstance(event, BookUpdate):
                if (book := self.books.get(event.symbol)) is not None:
                    book.snapshot(event, self._now_ns)
            elif isinstance(event, Instrument):
                self.out.events.instruments.append(event)

    def _backfilled(self, answer: RestAnswer, trades: list[Trade]) -> None:
        symbol = answer.symbol
        track = self._trades.get(symbol)
        stored: list[Trade] = []
        if track is not None:
            stored = track.fill(trades, self.shard, self.out.events.gaps, f"backfill:{answer.command}")
        if track is not None and stored:
            self.out.events.trades.extend(stored)
            self._judged(track)
        self.out.backfilled += len(stored)
        self.out.duplicates += len(trades) - len(stored)
        self.backfill.answered(answer.command, symbol, [trade.id for trade in trades], len(stored), self._now_ns)

    # events
    def _trade(self, trade: Trade, track: TradeTrack | None) -> None:
        symbol = trade.symbol
        if track is None:
            if self._is_retired(ChannelName.TRADES, symbol):
                return
            track = self._trades[symbol] = TradeTrack.begin(trade)
            self._seen(ChannelName.TRADES, symbol, trade.id - 1, trade.receive_ns)
        elif not track.accept(trade, self.shard, self.out.events.gaps):
            self.out.duplicates += 1
            return
        self.out.events.trades.append(trade)
        self._judged(track)

    def _lacks(self, record: control.Missing) -> None:
        track = self._trades.get(record.symbol)
        if track is not None and track.lack(record.ranges, record.from_ns, record.to_ns):
            self._judged(track)
            self.backfill.want(record.symbol)

    def _judged(self, track: TradeTrack) -> None:
        """Its holes may be others now."""
        self._touched["t:" + track.symbol] = track
        if track.waiting:
            self._pending[track.symbol] = track
        else:
            self._pending.pop(track.symbol, None)

    def _book(self, update: BookUpdate, source: str) -> None:
        if update.symbol not in self.books and self._is_retired(ChannelName.BOOK, update.symbol):
            return
        book = self._book_of(update.symbol)
        if source != book.meta.source:
            self._relieve(book, source, update.receive_ns)
        book.update(update, source, self._now_ns)

    def _relieve(self, book: BookTrack, source: str, at_ns: int) -> None:
        """A live connection brings the book: what counted so far and is not live (a dead session's rest) ends."""
        primary = book.meta.source
        if primary and not self.sources.is_live(primary) and self.sources.is_live(source):
            book.lost(primary, "session_lost", at_ns, [source])

    def _book_of(self, symbol: str, native: str = "") -> BookTrack:
        book = self.books.get(symbol)
        if book is None:
            meta = BookMeta(symbol, native or self.settings.natives.get(symbol, symbol))
            book = self.books[symbol] = BookTrack(meta, self.settings.books, self.out)
        return book

    def _instrument(self, instrument: Instrument, _: str) -> None:
        self.out.events.instruments.append(instrument)

    def _begins(self, symbol: str, place: int, at_ns: int) -> tuple[bool, Gap | None]:
        """The first ticker of an instrument: whether it is wanted, and the gap that ends with it."""
        if self._is_retired(ChannelName.TICKER, symbol):
            return False, None
        return True, self._seen(ChannelName.TICKER, symbol, place, at_ns)

    def _seen(self, channel: ChannelName, symbol: str, to_seq: int, at_ns: int) -> Gap | None:
        """The first event of a topic; answers the gap that ends with it."""
        gap = self._unseen.seen(channel.value, symbol, to_seq, at_ns)
        if gap is not None:
            self.out.gap(gap)
        return gap

    # what the manifest wants
    def _expect(self, topics: Iterable[TopicRef]) -> None:
        """Receivers name what they ask for before it comes: their manifest may be newer than the one known here.

        Their requests for metadata may have been answered before that, and nobody knew then whose it was: ask again.
        """
        new: dict[str, str] = {}
        for topic in topics:
            if topic.symbol not in self._natives:
                new[topic.symbol] = topic.native
            self._mapper.learn(topic.native, topic.symbol)
            self._natives[topic.symbol] = topic.native
            self._retired.discard(key_of(topic))
        single = new.items() if len(new) <= ASK_SINGLY else [("", "")]
        for symbol, native in single:
            self.out.command("instruments", symbol, native, "", self._now_ns, "metadata of what is new here")

    def _is_retired(self, channel: ChannelName, symbol: str, interval: str = "") -> bool:
        if (channel.value, symbol, interval) not in self._retired:
            return False
        self.out.duplicates += 1
        return True

    def _forget_unwanted(self, wanted: frozenset[TopicKey], *, ended: bool) -> None:
        """What neither the manifest wants nor a connection brings: it would wait for what never comes."""
        known = {(ChannelName.TRADES.value, symbol, "") for symbol in self._trades}
        known |= {(ChannelName.TICKER.value, symbol, "") for symbol in self._quotes.tracks}
        known |= {(ChannelName.CANDLES.value, symbol, interval) for symbol, interval in self._candles.tracks}
        known |= {(ChannelName.BOOK.value, symbol, "") for symbol in self.books}
        known |= {(channel, symbol, "") for channel, _, symbol in (key.partition("/") for key in self._unseen.awaited)}
        for key in sorted(known - wanted - self.sources.covered()):
            self._forget(key, ended=ended)

    def _forget(self, key: TopicKey, *, ended: bool) -> None:
        """Drop what is known of a topic, so that it begins anew when it is wanted again.

        What owes a gap is kept for that, unless it is known to have ``ended``: then the gap ends too.
        """
        channel, symbol, interval = key
        if ended:
            self._end_gap(channel, symbol)
        self._unseen.forget(channel, symbol)
        if channel == ChannelName.TRADES:
            if (trades := self._trades.get(symbol)) is not None:
                if trades.waiting:
                    trades.expire(_EVER, self.shard, self.out.events.gaps)
                    self._pending.pop(symbol, None)
                    self._touched["t:" + symbol] = trades
                    self.backfill.want(symbol)
                if not trades.owes:
                    self._delete("t:" + symbol)
                    del self._trades[symbol]
        elif channel == ChannelName.TICKER:
            if self._quotes.forget(symbol):
                self._delete("k:" + symbol)
        elif channel == ChannelName.CANDLES:
            if self._candles.forget(symbol, interval, ended=ended):
                self._delete(field_of(symbol, interval))
        elif (book := self.books.get(symbol)) is not None:
            if book.meta.gaps.current is None:
                self._delete("b:" + symbol)
                del self.books[symbol]
                self._dropped.add(symbol)
            else:
                book.rest()

    def _end_gap(self, channel: str, symbol: str) -> None:
        """The instrument was delisted, or is wanted no longer: a gap without an end has it now."""
        at_ns = self._now_ns or id_of(self.pos)[0] * MS
        gap = self._unseen.ended(channel, symbol, at_ns)
        if channel == ChannelName.TRADES and (trades := self._trades.get(symbol)) is not None:
            gap = trades.ended(self.shard, at_ns) or gap
        elif channel == ChannelName.TICKER and (ticker := self._quotes.tracks.get(symbol)) is not None:
            gap = ticker.gaps.close(-1, at_ns, "") or gap
        elif channel == ChannelName.BOOK and (book := self.books.get(symbol)) is not None:
            gap = book.meta.gaps.close(-1, at_ns, "") or gap
        if gap is not None:
            self.out.gap(gap)

    def _delete(self, field: str) -> None:
        self._touched.pop(field, None)
        self._deleted.add(field)

    # coverage (sources.Listener)
    def covered(self, topic: TopicRef, source: str, at_ns: int) -> None:
        self._expect((topic,))
        if topic.channel in NUMBERED and not self._known(topic):
            # Data may come before its acknowledgement, but not before the connection.
            self._unseen.covered(topic.channel, topic.symbol, self.sources.connected_ns(source) or at_ns)
        if topic.channel == ChannelName.BOOK:
            book = self._book_of(topic.symbol, topic.native)
            self._relieve(book, source, at_ns)
            book.covered(source, self._now_ns)
        if topic.channel == ChannelName.TICKER:
            self._quotes.subscribed(topic.symbol, source, at_ns)

    def lost(self, topic: TopicRef, source: str, cause: str, at_ns: int, others: list[str]) -> None:
        symbol = topic.symbol
        if cause == REMOVED:
            if not others:
                self._retired.add(key_of(topic))
                self._forget(key_of(topic), ended=True)
                return
            cause = "disconnected"  # The others are about to end it too, but they bring it still.
        if topic.channel == ChannelName.BOOK:
            if (book := self.books.get(symbol)) is not None:
                book.lost(source, cause, at_ns, others)
            return
        if cause == "unsubscribed":
            cause = "disconnected"
        if not others and (gap := self._unseen.lost(topic.channel, symbol, cause, at_ns)) is not None:
            self.out.gap(gap)
        if topic.channel == ChannelName.TRADES:
            if not others and (trades := self._trades.get(symbol)) is not None:
                trades.interrupted(cause)
                self._touched["t:" + symbol] = trades
        elif topic.channel == ChannelName.TICKER:
            self._quotes.lost(symbol, source, cause, at_ns, others, in_order=self._in_order)
        else:
            until_ns = brought_until(cause, at_ns, in_order=self._in_order)
            self._candles.lost(symbol, source, cause, others, until_ns)

    def _known(self, topic: TopicRef) -> bool:
        """Whether the topic ever had an event."""
        return topic.symbol in (self._trades if topic.channel == ChannelName.TRADES else self._quotes.tracks)

    # time
    def _expire(self, before_ns: int) -> None:
        """Holes found before that receive time become gaps."""
        for symbol, track in list(self._pending.items()):
            known = len(self.out.events.gaps)
            track.expire(before_ns, self.shard, self.out.events.gaps)
            if len(self.out.events.gaps) > known:
                self._touched["t:" + symbol] = track
                self.backfill.want(symbol)
            if not track.waiting:
                del self._pending[symbol]
        self._quotes.settle(before_ns)

    def tick(self, now_ns: int, monotonic: float, *, idle: bool, all_read: bool = False) -> None:
        """Time passes. ``all_read``: nothing that was there is still to be read, so nobody who is silent stands in it.
        ``idle``: nor did anything come since, so the wall clock counts too."""
        self._now_ns, self._monotonic = now_ns, monotonic
        if monotonic - self._ticked > ASLEEP:
            self.sources.heard.clear()
        self._ticked = monotonic
        if idle and (self._pending or self._quotes.unsettled):
            self._expire(now_ns - self.settings.grace_ns)
        # Others may go on without a pause for as long as one is silent.
        if (idle or all_read) and self.sources.silence(self.settings.session_silence, monotonic, now_ns):
            self._ask_again()
        for book in self.books.values():
            book.tick(now_ns)
        if not self.backfill.idle:
            # An answer may stand in what was not read yet: until then none is overdue.
            self.backfill.tick(now_ns, now_ns if idle else min(now_ns, id_of(self.pos)[0] * MS))

    def _ask_again(self) -> None:
        """Sessions began or ended: who had claimed a request may be gone."""
        living = self.sources.living()
        self.backfill.again(living, self._now_ns)
        for book in self.books.values():
            book.again(living, self._now_ns)

    def close_holes(self) -> None:
        """An orderly end: holes become gaps now, whoever comes next may close them."""
        self._expire(self._now_ns + self.settings.grace_ns)

    # output
    @property
    def moved(self) -> bool:
        """Whether there is anything to commit."""
        return self.pos != self._committed_pos or bool(
            self._touched
            or self._deleted
            or len(self.out.events)
            or self.out.commands
            or self.backfill.touched
            or self.backfill.gone
            or self.backfill.tracks
        )

    @property
    def trims(self) -> bool:
        """Whether a commit would free raw entries although nothing moved: a full server takes no input before that."""
        now = self._monotonic
        if now - self._floored < FLOOR_EVERY:
            return False
        if self.replay_from() != self._floor:
            return True
        return self._images.any_due(self.books.values(), self.pos, now)

    def take(self) -> Taken:
        """Encode everything since the last call. The memory goes on from there."""
        out = self.out
        block, deltas = out.events, out.deltas
        images = self._images.take(self.books.values(), self.pos, self._monotonic)
        self._touched |= {"t:" + symbol: self._trades[symbol] for symbol in self.backfill.tracks & self._trades.keys()}
        self.backfill.tracks.clear()
        fields = {name: checkpoint.encode(state) for name, state in self._touched.items()}
        self._touched.clear()
        for symbol, book in self.books.items():
            if book.touched:
                fields["b:" + symbol] = checkpoint.encode(book.meta)
                book.touched = False
        deleted = (
            changes.sessions(self.sources, fields)
            + changes.topics(self._unseen, fields)
            + changes.fillings(self.backfill, fields)
            + sorted(self._deleted - fields.keys())
        )
        self._deleted.clear()
        images |= dict.fromkeys(self._dropped - images.keys(), b"")
        self._dropped.clear()
        number, before = 0, self.eid
        if len(block) or deltas.deltas:
            self.en += 1
            number = self.en
        floor = ""
        if self._monotonic - self._floored >= FLOOR_EVERY:
            # A floor that is a little too low only keeps a few entries longer.
            self._floored = self._monotonic
            found = self.replay_from()
            if found != self._floor:
                floor = self._floor = found
        taken = Taken(
            pos=self.pos,
            floor=floor,
            en=number,
            eid_before=before,
            events=events.encode(block) if number else b"",
            deltas=events.encode(deltas) if deltas.deltas else b"",
            fields=fields,
            deleted=deleted,
            images=images,
            commands=[control.encode(command) for command in out.commands],
            given_up=out.given_up,
            backfilled=out.backfilled,
            block=block,
            duplicates=out.duplicates,
            frames=out.frames,
            oldest_ns=out.oldest_ns,
        )
        self._committed_pos = self.pos
        out.events, out.deltas, out.commands, out.given_up = EventBlock(), DeltaBlock(), [], []
        out.backfilled = out.duplicates = out.frames = out.oldest_ns = 0
        if out.traces:
            out.traces = []
        return taken


def _ends_in_order(record: control.AnyControl) -> bool:
    """Whether what a connection brought before this record is all there was until then."""
    if isinstance(record, control.Disconnected):
        return record.cause in IN_ORDER
    return isinstance(record, control.SessionEnd | control.Unsubscribed)


def _image(payload: bytes | None) -> Image | None:
    if payload is None:
        return None
    try:
        return msgspec.msgpack.decode(payload, type=Image)
    except msgspec.DecodeError:
        return None

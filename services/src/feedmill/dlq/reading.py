"""A dead letter read again, by the code of today. Pure.

What a letter holds is told by its key and its first bytes: frames and REST answers as the receiver packed them, whole
batches that an older version could not read, and events that PostgreSQL refused (their session says so).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from feedmill.dlq.letters import EVENT_SESSION, Letter
from feedmill.exchanges.base import BookUpdate, MapError, Mapper, VenueEvent
from feedmill.processor.rows import STRANGER, numbered
from feedmill.shared.control import decode_answer
from feedmill.shared.events import BookSnapshot, Candle, Gap, Instrument, Ticker, Trade, decode_events
from feedmill.shared.frames import RawBatch, RunKind, decode_batch

Storable = Trade | Ticker | Candle | Instrument | BookSnapshot | Gap
_EVENTS: dict[str, type[Storable]] = {
    kind.__name__.lower(): kind for kind in (Trade, Ticker, Candle, Instrument, BookSnapshot, Gap)
}
_DETAIL = 300
_ANSWER = (b"\x97", b"\x98")
"""First byte of a packed REST answer: an array of seven, or of eight where it is traced."""


class Unreadable(ValueError):
    """Today's code cannot handle it either: it stays a dead letter, with this reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail[:_DETAIL]


@dataclass(slots=True)
class Contents:
    """What a letter holds."""

    events: list[Storable] = field(default_factory=list)
    books: int = 0
    """Changes of books: they belong at their place in a chain that has gone on since."""
    controls: int = 0
    """Records of connections: what they said is over."""
    frames: list[tuple[int, bytes]] = field(default_factory=list)
    """(receive time, frame) of frames with trades: the distributor counts their numbers as missing."""

    @property
    def trades(self) -> list[Trade]:
        return [event for event in self.events if isinstance(event, Trade)]


def read(letter: Letter, mapper: Mapper) -> Contents:
    """Raises Unreadable."""
    found = Contents()
    try:
        _read(letter, mapper, found)
    except Unreadable:
        raise
    except MapError as error:
        raise Unreadable(error.reason, error.detail) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise Unreadable(letter.reason if letter.reason in _PACKED else "bad_value", str(error)) from error
    except Exception as error:
        raise Unreadable("internal_error", f"{type(error).__name__}: {error}") from error
    return found


_PACKED = frozenset({"undecodable_batch", "undecodable_run", "undecodable_answer", "undecodable_control"})
"""Reasons for what is not even of the form that receivers write."""


def _read(letter: Letter, mapper: Mapper, found: Contents) -> None:
    session, payload = letter.key.session, letter.payload
    if session.startswith(EVENT_SESSION):
        kind = _EVENTS.get(letter.reason.partition("_")[0])
        if kind is None:
            raise Unreadable(letter.reason, letter.detail or "not an event that is known here")
        found.events.append(msgspec.msgpack.decode(payload, type=kind))
    elif session == STRANGER:
        found.events += [event for _, event in numbered(decode_events(payload)) if isinstance(event, Storable)]
    elif letter.reason == "undecodable_batch":
        _batch(decode_batch(payload), mapper, found)
    elif letter.reason == "undecodable_run":
        raise Unreadable(letter.reason, letter.detail)  # Its times are lost: nothing can be made of it.
    elif payload[:1] in _ANSWER:
        _answer(payload, letter.receive_ns, mapper, found)
    elif payload[:1] and 0x80 <= payload[0] <= 0x8F:
        found.controls += 1
    else:
        _frame(payload, letter.receive_ns, mapper, found)


def _batch(batch: RawBatch, mapper: Mapper, found: Contents) -> None:
    for run in batch.runs:
        if len(run.times) != len(run.frames):
            raise Unreadable("undecodable_run", f"{len(run.times)} times for {len(run.frames)} records")
        for at_ns, payload in zip(run.times, run.frames, strict=True):
            if run.kind == RunKind.FRAMES:
                _frame(payload, at_ns, mapper, found)
            elif run.kind == RunKind.REST:
                _answer(payload, at_ns, mapper, found)
            else:
                found.controls += 1


def _frame(payload: bytes, at_ns: int, mapper: Mapper, found: Contents) -> None:
    payload.decode()  # As the distributor does: bytes that are no text are bad wherever they stand.
    events = mapper.map(payload, at_ns)
    _sort(events, found)
    if any(isinstance(event, Trade) for event in events):
        found.frames.append((at_ns, payload))


def _answer(payload: bytes, at_ns: int, mapper: Mapper, found: Contents) -> None:
    answer = decode_answer(payload)
    _sort(mapper.map_rest(answer.kind, answer.symbol, answer.status, answer.body, at_ns), found)


def _sort(events: Any, found: Contents) -> None:
    event: VenueEvent
    for event in events:
        if isinstance(event, BookUpdate):
            found.books += 1
        else:
            found.events.append(event)

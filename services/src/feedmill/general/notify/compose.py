"""Rows of the outbox become messages: in their order, as many in one as fit, those of one key as one. Pure.

Where many wait, events of one key are put together whatever stands between: a flood is told by its sums, not for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from feedmill.general.notify import markdown, texts
from feedmill.general.notify.markdown import Block
from feedmill.general.notify.notices import Waiting
from feedmill.resources.types import Severity

BLOCKS = 20
"""Most paragraphs of one message."""
FLOOD = 200
"""So many rows are a flood."""
Hide = Callable[[str, frozenset[str]], str]
"""Takes out of a text what must not be shown: secrets and, where they are masked, the names of accounts (given: those
that the text is about)."""
OF_ACCOUNTS = frozenset(("Fill", "Order", "Transfer", "AccountProblem", "KeyExpires"))
"""Kinds whose subject is an account."""


Part = tuple[Block, tuple[int, ...], bool]
"""A paragraph, the rows that are told with it, and whether it is silent."""


@dataclass(frozen=True, slots=True)
class Message:
    """``ids``: the rows that are told once this one was sent. ``marked``: MarkdownV2; ``plain``: the same without."""

    marked: str
    plain: str
    ids: tuple[int, ...]
    silent: bool
    """No sound: nothing in it is worth more than Info."""


def compose(rows: Sequence[Waiting], hide: Hide) -> Iterator[Message]:
    """Messages that tell all of ``rows``, in their order; each is made when it is asked for.

    A row whose text goes over several messages is told by the last of them.
    """
    held: list[Part] = []
    used = 0
    for part in _parts(rows, hide):
        length = markdown.units(markdown.marked(part[0])) + 2
        # Where only the last piece of a row tells it, the first begins a message: else it would come again.
        begins = not part[1] and bool(held) and bool(held[-1][1])
        if held and (used + length > markdown.MOST or len(held) == BLOCKS or begins):
            yield _message(held)
            held, used = [], 0
        held.append(part)
        used += length
    if held:
        yield _message(held)


def _parts(rows: Sequence[Waiting], hide: Hide) -> Iterator[Part]:
    for told in _groups(rows):
        pieces = markdown.fitted(_hidden(_block(told), hide, frozenset(_accounts(told))))
        silent = all(row.notice.severity is Severity.INFO or _over(row) for row in told)
        for piece in pieces[:-1]:
            yield piece, (), silent
        yield pieces[-1], tuple(row.id for row in told), silent


def _groups(rows: Sequence[Waiting]) -> list[list[Waiting]]:
    """Rows that are told as one paragraph each."""
    together = [
        list(group) for _, group in groupby(rows, key=lambda row: (row.notice.kind, row.notice.key, _over(row)))
    ]
    if len(rows) < FLOOD:
        return together
    merged: dict[tuple[str, str] | int, list[Waiting]] = {}
    for at, group in enumerate(together):
        notice = group[0].notice
        # A state and its end must not change places.
        merged.setdefault((notice.kind, notice.key) if notice.kind in texts.EVENTS else at, []).extend(group)
    return list(merged.values())


def _over(row: Waiting) -> bool:
    return bool(row.notice.body.get("over"))


def _accounts(rows: Sequence[Waiting]) -> Iterator[str]:
    for notice in (row.notice for row in rows):
        if notice.kind in OF_ACCOUNTS:
            yield notice.subject
        elif "/@" in notice.subject:
            yield notice.subject.replace("/@", "/")


def _block(rows: Sequence[Waiting]) -> Block:
    try:
        return texts.block_of([row.notice for row in rows])
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        # What another version wrote: it is told all the same, and holds up nothing.
        return texts.refused(rows[-1].notice)


def _hidden(block: Block, hide: Hide, accounts: frozenset[str]) -> Block:
    return Block(block.icon, hide(block.title, accounts), tuple(hide(line, accounts) for line in block.lines))


def _message(parts: Sequence[Part]) -> Message:
    blocks = [block for block, _, _ in parts]
    return Message(
        marked=markdown.together(blocks, as_marked=True),
        plain=markdown.together(blocks, as_marked=False),
        ids=tuple(number for _, ids, _ in parts for number in ids),
        silent=all(silent for _, _, silent in parts),
    )

"""What a commit brought that is worth a line of the log: gaps and dead letters, those of a kind as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from feedmill.shared.account_events import AccountBlock
from feedmill.shared.events import DeadLetter, Gap

SHOWN = 5
"""Instruments named in a line."""
DETAIL = 120

Line = tuple[str, str, dict[str, Any]]
"""(level, event, fields)."""


def lines_of(shard: str, gaps: Iterable[Gap], letters: Iterable[DeadLetter]) -> Iterator[Line]:
    """A gap has a line when it opens and when it is closed, none for what it becomes meanwhile."""
    opened: dict[tuple[str, str], list[Gap]] = {}
    closed: dict[tuple[str, str, str], list[Gap]] = {}
    for gap in gaps:
        if gap.state == "closed":
            closed.setdefault((gap.channel, gap.cause, gap.repaired_by.partition(":")[0]), []).append(gap)
        elif gap.revision == 1:
            opened.setdefault((gap.channel, gap.cause), []).append(gap)
    for (channel, cause), found in sorted(opened.items()):
        yield "warning", "gaps.opened", {"channel": channel, "cause": cause, **_some(found)}
    for (channel, cause, repaired), found in sorted(closed.items()):
        fields = {"channel": channel, "cause": cause, "repaired_by": repaired or "nothing", **_some(found)}
        yield "info", "gaps.closed", fields
    for reason, kept in _by_reason(letters):
        fields = {"reason": reason, "letters": len(kept), "first": _id(shard, kept[0])}
        yield "warning", "dead_letters", {**fields, "detail": kept[0].detail[:DETAIL]}


def account_lines(shard: str, block: AccountBlock) -> Iterator[Line]:
    """The same of an account. What stands in a frame of its is not shown."""
    for gap in block.gaps:
        if gap.revision == 1:
            # The first gap of all: what was before it was never listened to.
            yield (
                "info" if gap.cause == "first" else "warning",
                "account.gap_opened",
                {"gap": gap.id, "cause": gap.cause},
            )
    for done in block.reconciled:
        if done.gap_id:
            fields = {"gap": done.gap_id, "requests": done.requests, "refused": len(done.refused)}
            yield "warning" if done.refused else "info", "account.gap_closed", fields
    for reason, kept in _by_reason(block.dead_letters):
        yield "warning", "dead_letters", {"reason": reason, "letters": len(kept), "first": _id(shard, kept[0])}


def _by_reason(letters: Iterable[DeadLetter]) -> list[tuple[str, list[DeadLetter]]]:
    reasons: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        reasons.setdefault(letter.reason, []).append(letter)
    return sorted(reasons.items())


def _id(shard: str, letter: DeadLetter) -> str:
    """As feedmill dlq takes it."""
    return f"{shard}/{letter.session}/{letter.batch}/{letter.index}"


def _some(gaps: list[Gap]) -> dict[str, Any]:
    symbols = sorted({gap.symbol for gap in gaps if gap.symbol})
    return {"gaps": len(gaps), "symbols": symbols[:SHOWN], "first": min(gap.id for gap in gaps)}

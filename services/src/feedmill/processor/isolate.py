"""Finding the events that PostgreSQL refuses, by bisection under savepoints."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from feedmill.processor import writer
from feedmill.processor.cuts import Cutter
from feedmill.processor.rows import CommitKey, Event, Rows
from feedmill.processor.writer import Stored

Unit = tuple[CommitKey, int, Event]
"""(commit, place in it, event)."""


async def isolate(
    connection: asyncpg.Connection,
    shard: str,
    units: list[Unit],
    render: Callable[[list[Unit]], Rows],
    stored: Stored,
    cutter: Cutter,
) -> list[tuple[CommitKey, int, Event, Exception]]:
    """Store all units but those that are refused one by one; answers these with the error.

    Within an open transaction. Raises whatever is not the data's fault. ``k`` bad ones of ``n`` cost about
    ``2 k log2(n)`` statements.
    """
    refused: list[tuple[CommitKey, int, Event, Exception]] = []
    pending = [units] if units else []
    while pending:
        part = pending.pop()
        attempt = Stored()
        try:
            rows = render(part)
            async with connection.transaction():
                await writer.store_busy(connection, rows, attempt)
                await writer.store_seldom(connection, shard, rows, attempt, cutter)
        except Exception as error:
            if not writer.is_data(error):
                raise
            if len(part) == 1:
                refused.append((*part[0], error))
            else:
                middle = len(part) // 2
                pending += [part[middle:], part[:middle]]
        else:
            stored.merge(attempt)
    return refused

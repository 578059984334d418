"""How far long work is: told to whoever wants to show it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable

Progress = Callable[[str, int, int], None]
"""(what is being done, bytes done, bytes expected or 0 = not known). Called often: must be quick, and raise nothing."""


def silent(what: str, done: int, expected: int) -> None:
    """Nobody wants to know."""


async def counted(
    source: AsyncIterable[bytes], progress: Progress, what: str, expected: int = 0
) -> AsyncGenerator[bytes, None]:
    """The same pieces; how many bytes they were is told."""
    done = 0
    progress(what, 0, expected)
    async for piece in source:
        done += len(piece)
        yield piece
        progress(what, done, expected)

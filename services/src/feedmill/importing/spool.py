"""Rows that were checked, as the lines that COPY takes, in a file without a name.

So the file that is imported is read once, and what is stored is what was checked, even if somebody writes to it then.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from feedmill.importing import ImportRefused

Column = list[str | None]
Owner = tuple[str | None, str | None]
"""Account and symbol of a row, each None where its target has none."""


def row_hash(content: str) -> int:
    """64 bits of MD5: made to find differences, not to withstand anybody."""
    digest = hashlib.md5(content.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class Spool:
    """Lines of: number of the owner, the fields, hash of the fields. An absent field is an empty one."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="feedmill-import-")  # noqa: SIM115 (closed by close)

    def add(self, owners: list[int], columns: list[Column]) -> None:
        """Rows, by their columns. Raises ImportRefused when there is no room."""
        rows = zip(*([text or "" for text in column] for column in columns), strict=True)
        lines = [
            f"{owner}\t{content}\t{row_hash(content)}\n"
            for owner, content in zip(owners, map("\t".join, rows), strict=True)
        ]
        try:
            # Texts hold no control character, so the backslash is all that COPY wants escaped.
            self._file.write("".join(lines).replace("\\", "\\\\").encode())
        except OSError as error:
            raise ImportRefused(
                f"the rows do not fit into {tempfile.gettempdir()} ({error.strerror}): make room, or set TMPDIR"
            ) from None

    def batches(self, skip: int, size: int) -> Iterator[tuple[int, bytes]]:
        """All lines but the first ``skip``, so many at a time: how many, and their text."""
        self._file.seek(0)
        lines = itertools.islice(self._file, skip, None)
        while batch := list(itertools.islice(lines, size)):
            yield len(batch), b"".join(batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

"""When books are kept as images for a restart. Pure.

New books at once, since without an image a restart could not go on with them; the others in turn, the oldest image
first, as far as a rate in bytes allows: a full book is a quarter of a megabyte.
"""

from __future__ import annotations

from collections.abc import Collection

from feedmill.distributor.books import BookTrack

AT_ONCE = 1024 * 1024
"""Bytes of images in one commit, those of books built anew apart."""


class ImageSchedule:
    """Decides and makes images. Times are monotonic seconds."""

    def __init__(self, interval: float, bytes_per_second: int) -> None:
        self._interval = interval
        self._rate = bytes_per_second
        self._room = float(AT_ONCE)
        """Bytes that may be made now."""
        self._refilled = 0.0

    def any_due(self, books: Collection[BookTrack], pos: str, now: float) -> bool:
        """Whether an image or its position could be moved on to ``pos``."""
        return any(book.valid and book.meta.image_pos != pos and self._due(book, now) for book in books)

    def _due(self, book: BookTrack, now: float) -> bool:
        return now - book.imaged >= self._interval

    def take(self, books: Collection[BookTrack], pos: str, now: float) -> dict[str, bytes]:
        """The images to keep with the next commit, which stands at raw position ``pos``."""
        self._room = min(self._room + (now - self._refilled) * self._rate, float(AT_ONCE))
        self._refilled = now
        found: dict[str, bytes] = {}
        due: list[BookTrack] = []
        for book in books:
            if book.valid and not book.meta.image_pos:
                self._make(book, pos, now, found)
            elif book.valid and self._due(book, now):
                due.append(book)
        for book in sorted(due, key=lambda each: each.imaged):
            if self._room <= 0:
                break
            self._make(book, pos, now, found)
        return found

    def _make(self, book: BookTrack, pos: str, now: float, found: dict[str, bytes]) -> None:
        book.imaged = now
        image = book.take_image(pos)
        if image is not None:
            found[book.meta.symbol] = image
            self._room -= len(image)

"""Remembers texts that are dear to make, so that an object reconciled again and again costs them once."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any


class Memo:
    """``make`` of a document (JSON types only), remembered by the document's content: it stays a pure function.

    ``most``: characters of all remembered texts; beyond it the one that was longest not asked for is forgotten.
    """

    def __init__(self, make: Callable[[Mapping[str, Any]], str], most: int) -> None:
        self._make = make
        self._most = most
        self._size = 0
        self._texts: OrderedDict[bytes, str] = OrderedDict()

    def __call__(self, document: Mapping[str, Any]) -> str:
        # The order of the keys counts: it is the order of the text.
        key = blake2b(json.dumps(document, separators=(",", ":")).encode(), digest_size=16).digest()
        known = self._texts.get(key)
        if known is not None:
            self._texts.move_to_end(key)
            return known
        made = self._texts[key] = self._make(document)
        self._size += len(made)
        while self._size > self._most:
            _, forgotten = self._texts.popitem(last=False)
            self._size -= len(forgotten)
        return made

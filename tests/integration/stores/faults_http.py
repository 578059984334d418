"""Faults that a test puts before a store's server: which requests they meet, how often, and what happens to those."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """One kind of trouble. Of several that meet a request, the first one that is not used up counts."""

    where: str
    """Regular expression on ``METHOD path``."""
    times: int = 1
    spare: int = 0
    """So many go by unharmed first."""
    status: int = 0
    """Answer so, and do nothing."""
    code: str = "service_unavailable"
    """The API's own word for it."""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Of a download: send so many bytes of the body, then close the connection."""
    unanswered: bool = False
    """Do it, and close the connection without an answer."""
    hold: threading.Event | None = None
    """Do nothing until it is set."""


class Faults:
    """What is to go wrong, and what was asked for. Threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.asked: list[str] = []
        """``METHOD path`` of every request, in order."""

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._faults += faults

    def clear(self) -> None:
        with self._lock:
            self._faults = []

    def meet(self, asked: str) -> Fault | None:
        """The fault of this request, which counts as used."""
        with self._lock:
            self.asked.append(asked)
            for fault in self._faults:
                if fault.times > 0 and re.search(fault.where, asked):
                    if fault.spare > 0:
                        fault.spare -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def count(self, where: str) -> int:
        """Requests so far."""
        with self._lock:
            return sum(1 for asked in self.asked if re.search(where, asked))

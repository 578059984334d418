"""What a run (a backup, a drill, a restore) says of itself: while it works in ``/health``, in the end as the last words
of its container. Whatever is missing or of another form is unknown. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from feedmill_operator.reconcile.reading import mapping, words

PHASES = ("Running", "Succeeded", "Failed")
STEP = 5
"""Percent: progress is told in such steps."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_LONGEST_MESSAGE = 2000
_LARGEST = 2**53 - 1


@dataclass(frozen=True, slots=True)
class RunSaid:
    """As ``feedmill backup ... --status-file`` writes it."""

    phase: str = ""
    """Running, Succeeded, Failed; empty = it did not say."""
    progress: int | None = None
    """Percent."""
    message: str = ""
    """What it did, why it failed, or which step it is at."""
    fields: Mapping[str, str | int] = field(default_factory=dict)
    """Further fields of the object's status, by their names there."""


_TEXTS = {"backupId": 64, "destination": 1000, "object": 1000, "sha256": 64, "keyId": 64, "schemaVersion": 64}
"""Field -> longest."""
_MOMENTS = ("contentAt", "restoredTo")
_NUMBERS = ("rows", "sizeBytes", "tables", "gaps")


def read_text(text: str) -> RunSaid | None:
    """The last words of a container; None when they are no status (a log's end, nothing)."""
    if not text.startswith("{"):
        return None
    try:
        return read_run(msgspec.json.decode(text.strip()))
    except msgspec.DecodeError:
        return None


def read_run(document: Any) -> RunSaid | None:
    """None when it says nothing of a run."""
    told = mapping(document)
    phase = told.get("phase")
    if phase not in PHASES:
        return None
    fields: dict[str, str | int] = {}
    for name, longest in _TEXTS.items():
        if value := words(told.get(name), longest):
            fields[name] = value
    for name in _MOMENTS:
        moment = told.get(name)
        if isinstance(moment, str) and _MOMENT.fullmatch(moment):
            fields[name] = moment
    for name in _NUMBERS:
        if (number := _whole(told.get(name))) is not None:
            fields[name] = number
    percent = _whole(told.get("progress"))
    progress = None if percent is None else min(percent, 100) // STEP * STEP
    message = words(told.get("message"), _LONGEST_MESSAGE) or (words(told.get("step")) if phase == "Running" else "")
    return RunSaid(phase, progress, message, fields)


def _whole(value: Any) -> int | None:
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
    return value if known else None

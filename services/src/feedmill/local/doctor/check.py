"""The form of a check's outcome."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, with less room or safety than it should have."""
    FAIL = "fail"
    """It will not work."""


@dataclass(frozen=True, slots=True)
class Check:
    grade: Grade
    what: str
    found: str
    remedy: str = ""
    """What to do; empty when all is well."""


def ok(what: str, found: str) -> Check:
    return Check(Grade.OK, what, found)


def warn(what: str, found: str, remedy: str) -> Check:
    return Check(Grade.WARN, what, found, remedy)


def bad(what: str, found: str, remedy: str) -> Check:
    return Check(Grade.FAIL, what, found, remedy)

"""What is wrong with a manifest, in words: where, which value, and what to write instead. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from feedmill.resources.shape import Path, show_path

_USERINFO = re.compile(r"://[^\s/@]+@")
_SECRET_NAME = re.compile(r"secret|token|password|credential|apikey", re.IGNORECASE)
_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of the report."""

    file: str
    line: int
    """1-based; 0 = the file as a whole."""
    path: str
    """``spec.channels[1].depth``; empty = the document."""
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ResourceError(ValueError):
    """The manifests cannot be used; ``problems`` lists everything that is wrong with them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line, problem.path)))
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} in the resources:", *(f"  {problem}" for problem in self.problems)]))


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word nearest to ``word``, case set aside; None when none is near."""
    by_lower = {name.lower(): name for name in known}
    if word.lower() in by_lower:
        return by_lower[word.lower()]
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.65)
    return by_lower[near[0]] if near else None


def choose(word: str, known: Sequence[str]) -> str:
    """Remedy for a word that is not among ``known``."""
    near = did_you_mean(word, known)
    listed = ", ".join(known) or "none"
    return f"did you mean {near}? ({listed})" if near else f"write one of {listed}"


def show_value(value: Any, path: Path = ()) -> str:
    """A refused value, short, and never a secret somebody wrote where only its name belongs."""
    if any(isinstance(part, str) and _SECRET_NAME.search(part) for part in path):
        return "[value not shown]"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    text = str(value)
    text = _USERINFO.sub("://[credentials not shown]@", text)
    text = text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
    return f'"{text}"' if isinstance(value, str) else text


def at(path: Path) -> str:
    """The path as shown in a problem."""
    return show_path(path)

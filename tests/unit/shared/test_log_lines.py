"""Every line of the log in the code, read from the sources: named alike, saying what it is about and what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from feedmill.shared.log import _secret_name

ROOT = Path(__file__).parents[3]
SOURCES = (ROOT / "services" / "src" / "feedmill", ROOT / "operator" / "src" / "feedmill_operator")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)?")
SAYS_WHY = {
    "action", "cause", "causes", "code", "detail", "effect", "error", "exc_info", "exit_code", "found", "problem",
    "reason", "remedy", "server_has", "status", "why",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    place: str
    level: str
    event: str | None
    """None = not a literal."""
    fields: tuple[str, ...]
    spread: bool
    """Fields come from elsewhere too."""


def _lines() -> Iterator[Line]:
    for root in SOURCES:
        for path in sorted(root.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                of = ast.unparse(node.func.value)
                if node.func.attr not in LEVELS or not re.search(r"(^|[._])(log|logger)(\(\))?$|get_logger\(.*\)$", of):
                    continue
                first = node.args[0] if node.args else None
                event = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
                names = tuple(word.arg for word in node.keywords if word.arg)
                spread = any(word.arg is None for word in node.keywords)
                yield Line(f"{path.relative_to(root)}:{node.lineno}", node.func.attr, event, names, spread)


LINES = list(_lines())


def test_the_lines_are_found() -> None:
    assert len(LINES) > 180
    assert {line.event for line in LINES} >= {"receiver.start", "shard.interrupted", "maintenance.failed", "lease.held"}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.place)
def test_a_line_s_name_is_a_literal_of_one_form(line: Line) -> None:
    """So that it can be searched for, counted and limited: what changes from line to line is in its fields."""
    assert line.event is not None
    assert NAME.fullmatch(line.event), line.event


def test_no_field_has_the_name_of_a_secret() -> None:
    assert [line.place for line in LINES if any(map(_secret_name, line.fields))] == []


def test_warnings_and_errors_say_why_or_what_follows() -> None:
    bare = [
        f"{line.place} {line.event}"
        for line in LINES
        if line.level in ("warning", "error") and not line.spread and not SAYS_WHY & set(line.fields)
    ]
    assert bare == []

"""docs/conditions.md and the code know the same conditions and reasons."""

from __future__ import annotations

import re
from pathlib import Path

from feedmill_operator.reconcile.reasons import WARN, Reason, Type

PAGE = (Path(__file__).parents[3] / "docs" / "conditions.md").read_text()


def tables() -> list[tuple[str, list[str]]]:
    """(heading, words in the first column) of every table."""
    found: list[tuple[str, list[str]]] = []
    heading = ""
    for line in PAGE.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| ") and not line.startswith(("| type", "| reason")):
            found.append((heading, re.findall(r"`([A-Za-z]+)`", line.split("|")[1])))
    return found


def test_every_condition_stands_in_the_page_and_no_other() -> None:
    told = [word for heading, words in tables() if heading == "Conditions" for word in words]
    assert sorted(told) == sorted(str(kind) for kind in Type)


def test_every_reason_stands_in_the_page_and_no_other() -> None:
    told = {word for heading, words in tables() if heading != "Conditions" for word in words}
    assert told == {str(reason) for reason in Reason}


def test_reasons_fit_the_schema() -> None:
    assert set(Reason) > WARN
    for reason in Reason:
        assert re.fullmatch(r"[A-Z][A-Za-z]{2,60}", reason.value)

"""docs/labels.md names every label, annotation and component there is."""

from __future__ import annotations

import re
from pathlib import Path

from build_cases import CASES

from feedmill_operator import names

PAGE = (Path(__file__).parents[3] / "docs" / "labels.md").read_text(encoding="utf-8")


def test_the_page_names_all_of_them_and_no_others() -> None:
    prefixes = (f"{names.GROUP}/", "app.kubernetes.io/")
    known = {value for value in vars(names).values() if isinstance(value, str) and value.startswith(prefixes)}
    written = set(re.findall(r"(?:feedmill\.dev|app\.kubernetes\.io)/[a-z-]+", PAGE))
    assert written == known
    assert len(known) >= 13


def test_the_page_names_every_component() -> None:
    found = {each["metadata"]["labels"][names.COMPONENT] for build in CASES.values() for each in build()}
    row = next(line for line in PAGE.splitlines() if names.COMPONENT in line)
    assert found == set(re.findall(r"`([a-z-]+)`", row.split("|")[2]))

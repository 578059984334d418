"""What kopf leaves behind is not printed when it is collected; what anybody else leaves is."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from feedmill_operator.kopf_thread import KopfThread


async def _nothing() -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("place", "told"), [("/venv/site-packages/kopf/_core/queueing.py", False), ("/app/feedmill/service.py", True)]
)
def test_only_kopfs_own_coroutines_are_hidden(monkeypatch: pytest.MonkeyPatch, place: str, told: bool) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    thread = KopfThread(_nothing, lambda failure: None)
    thread.start()
    thread.stop()
    unraisable: Any = SimpleNamespace(object=SimpleNamespace(cr_code=SimpleNamespace(co_filename=place)))
    sys.unraisablehook(unraisable)
    # What others left may be collected just now, and is told too.
    assert (unraisable in seen) is told
    nameless: Any = SimpleNamespace(object=None)
    sys.unraisablehook(nameless)
    assert seen[-1] is nameless

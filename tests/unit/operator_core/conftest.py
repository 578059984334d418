"""What only tests of the operator's core need: the virtual clock."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from virtual_loop import VirtualLoop

T = TypeVar("T")


def virtually(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``work`` on a loop of its own with a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work())


@pytest.fixture(scope="session")
def virtual() -> Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]:
    """``virtual(work)`` runs the coroutine function ``work`` by the virtual clock and gives what it returns."""
    return virtually

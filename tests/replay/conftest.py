"""Real frames, read from beside the project; a test that needs them is skipped where they are absent."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("FEEDMILL_RECORDINGS", Path(__file__).parents[3] / "shared" / "recordings"))


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a recording, see the README beside them."""

    t_ns: int
    kind: str
    url: str
    data: bytes


@pytest.fixture
def recording() -> Callable[[str], list[Record]]:
    def load(name: str) -> list[Record]:
        path = FOLDER / f"{name}.jsonl.gz"
        if not path.exists():
            pytest.skip(f"{path.name} is not there: set FEEDMILL_RECORDINGS to the folder of recordings")
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return [Record(row["t_ns"], row["kind"], row["url"] or "", row["data"].encode()) for row in rows]

    return load

"""The demonstration, as a newcomer runs it: it proves itself, and its exit code is the proof."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

RECORDINGS = Path(os.environ.get("FEEDMILL_RECORDINGS", Path(__file__).parents[4] / "shared" / "recordings"))


def document_in(output: str) -> dict[str, Any]:
    """The JSON document after the lines of progress."""
    found = json.loads(output[output.index("\n{\n") :])
    assert isinstance(found, dict)
    return found


async def test_demo(tmp_path: Path, kit: Any) -> None:
    process = await kit.feedmill("demo", "--seconds", "4", "--json", "--data-dir", str(tmp_path / "demo"))
    output = await kit.ended(process)
    assert process.returncode == 0, output
    result = document_in(output)
    assert result["ok"]
    assert result["drained"]
    assert len(result["venues"]) == 3
    for venue in result["venues"]:
        assert venue["trades"]["emitted"] == venue["trades"]["stored"] > 0
        assert venue["books"]["checked"] > 0
        # The end of the run opens gaps of tickers and books, as nothing is seen from there on; none before it.
        assert venue["trades"]["gap_rows"] == venue["trades"]["in_gaps"] == venue["tickers"]["in_gaps"] == 0
        assert result["latencyMilliseconds"][venue["venue"]]["p99"] is not None


@pytest.mark.slow
async def test_demo_of_recorded_frames(tmp_path: Path, kit: Any) -> None:
    """Every frame of three real venues is mapped, and books chain."""
    if not RECORDINGS.is_dir():
        pytest.skip("no recordings there: set FEEDMILL_RECORDINGS to their folder")
    arguments = ("--recordings", str(RECORDINGS), "--json", "--data-dir", str(tmp_path / "demo"))
    process = await kit.feedmill("demo", *arguments)
    output = await kit.ended(process)
    assert process.returncode == 0, output
    result = document_in(output)
    assert result["ok"]
    assert result["deadLetters"] == []
    assert len(result["venues"]) == 3
    assert all(venue["trades"]["emitted"] == venue["trades"]["stored"] for venue in result["venues"])
    assert sum(venue["books"]["checked"] for venue in result["venues"]) > 0

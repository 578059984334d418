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
    assert [account["account"] for account in result["accounts"]] == ["binance-spot-0001", "deribit-derivatives-0001"]
    for account in result["accounts"]:
        found = next(venue for venue in result["venues"] if venue["venue"] == account["venue"])["accounts"]
        assert (found["emitted"], found["known"], found["dead_letters"], found["half_filled"]) == (1, 1, 0, 0)
        for flow in found["flows"].values():
            assert (flow["lost"], flow["doubled"], flow["phantom"], flow["wrong"]) == (0, 0, 0, 0)
        assert found["flows"]["fills"]["emitted"] == found["flows"]["fills"]["stored"] == account["fills"] > 0
        assert found["flows"]["orders"]["emitted"] == sum(account["orders"].values())
        assert found["flows"]["balances"]["stored"] == len(account["balances"]) > 0
        assert account["ordersInParts"] > 0
        assert account["orders"]["cancelled"] > 0
        assert account["gaps"] >= 2, "listened to at last, and cut once"
    kek = tmp_path / "demo" / "kek"
    assert kek.stat().st_mode & 0o777 == 0o600
    key = kek.read_text().split()[1]
    told = [path for path in (tmp_path / "demo").rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert told == [kek]
    assert not list((tmp_path / "demo").rglob("account-keys*"))


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

"""Manifests checked in a process of their own: the same verdict, and the evaluator stays out of the service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from feedmill.resources.load import ResourceError, load_read, read_files
from feedmill.shared import checked
from feedmill.shared.checked import CheckFailed, load_checked

FEED = """apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: spot}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  instruments: {symbols: [BTC-USDT]}
  channels: [%s]
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes long to start a program."""
    monkeypatch.setattr(checked, "TIMEOUT", 200.0)


def written(folder: Path, channels: str) -> Path:
    path = folder / "feed.yaml"
    path.write_text(FEED % channels)
    return path


@pytest.mark.parametrize(
    "channels",
    [
        "{name: Candles}",  # A rule: the interval is missing.
        "{name: Trades, depht: 5}",  # The schema.
        "{name: Trades}, {name: Candles}, {name: Nothing}",  # Both.
    ],
)
def test_the_verdict_is_that_of_one_process(tmp_path: Path, channels: str) -> None:
    read = read_files([written(tmp_path, channels)])
    with pytest.raises(ResourceError) as here:
        load_read(read, local=True)
    with pytest.raises(ResourceError) as apart:
        load_checked(read)
    assert apart.value.problems == here.value.problems
    assert here.value.problems


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="no such file"):
        load_checked(read_files([tmp_path / "none.yaml"]))


def test_what_holds_is_loaded_without_the_evaluator(tmp_path: Path) -> None:
    path = written(tmp_path, "{name: Trades}, {name: Candles, interval: 1m}")
    program = (
        "import sys; from feedmill.resources.load import read_files; from feedmill.shared.checked import load_checked;"
        "found = load_checked(read_files([sys.argv[1]]));"
        "print(sorted(found.feeds), sorted(found.pipelines), 'cel.cel' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[('default', 'spot')] [('default', 'main')] False"


def test_a_check_that_cannot_be_made_says_nothing_about_the_manifests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_files([written(tmp_path, "{name: Trades}")])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CheckFailed, match="could not be checked: the process for it ended with"):
        load_checked(read)

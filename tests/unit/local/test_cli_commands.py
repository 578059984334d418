"""The command line: quick, and wrong input told with its remedy and exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from feedmill import __version__
from feedmill.cli.common import human_bytes, human_seconds, plain, seconds
from feedmill.cli.main import COMMANDS, load
from feedmill.local.embedded.files import DirLock

SOURCES = Path(__file__).parents[3] / "services" / "src"


def feedmill(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
    environment |= {"PYTHONPATH": str(SOURCES), "COLUMNS": "120", **environ}
    command = [sys.executable, "-m", "feedmill.cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_help_names_every_command_and_imports_none(tmp_path: Path) -> None:
    shown = feedmill("--help", cwd=tmp_path)
    assert shown.returncode == 0
    for name, lazy in COMMANDS.items():
        assert (name in shown.stdout) is not lazy.hidden or name == "docs"
    script = (
        "import sys\nfrom feedmill.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'redis', 'asyncpg', 'aiohttp', 'fastapi', 'pydantic', 'alembic', 'uvicorn', 'rich.live'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", [name for name, lazy in COMMANDS.items() if not lazy.hidden])
def test_each_command_has_help(name: str, tmp_path: Path) -> None:
    command = load(name)
    assert command.name == name
    assert command.help


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["up", "-f", "nowhere.yaml"], 2, "nowhere.yaml: there is no such file or folder"),
        (["up"], 2, "--file"),
        (["up", "-f", "x.yaml", "--log-level", "loud"], 2, "--log-level 'loud': write debug, info, warning or error"),
        (["up", "-f", "x.yaml", "--for", "soon"], 2, "'soon' is not a duration: write 60s, 5m or 1h"),
        (["query", "select 1"], 2, ".feedmill holds no data: run feedmill up or feedmill demo first"),
        (["psql"], 2, ".feedmill holds no data"),
        (["tail"], 2, ".feedmill holds no Redis: start feedmill up"),
        (["tail", "--channel", "Orders"], 2, "--channel Orders: there is Trades, Book, Ticker, Candles and Gaps"),
        (["status"], 3, "nothing runs on .feedmill: start it with feedmill up"),
        (["demo", "--recordings", "none"], 2, "--recordings none: there is no such folder"),
        (["demo", "--data-dir", "full"], 1, "holds something else than a demonstration"),
        (["stat"], 2, "No such command 'stat'"),
    ],
)
def test_errors_are_one_line_with_a_remedy(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    (tmp_path / "x.yaml").write_text("")
    done = feedmill(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    flat = " ".join(done.stderr.replace("│", " ").split())
    assert said in flat
    assert "Traceback" not in done.stderr
    assert (tmp_path / "full" / "mine.txt").exists()
    assert not (tmp_path / ".feedmill").exists()


def test_who_is_starting_is_not_called_absent(tmp_path: Path) -> None:
    (tmp_path / ".feedmill").mkdir()
    lock = DirLock(tmp_path / ".feedmill", "data folder")
    lock.acquire(timeout=1.0)
    done = feedmill("status", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    flat = " ".join(done.stderr.replace("│", " ").split())
    assert ".feedmill is at work, and does not answer: it is starting or stopping: ask again in a moment" in flat
    lock.release()
    assert feedmill("status", cwd=tmp_path).returncode == 3


def test_no_embedded_needs_both_urls(tmp_path: Path) -> None:
    manifest = tmp_path / "feed.yaml"
    manifest.write_text(
        "apiVersion: feedmill.dev/v1alpha1\nkind: ExchangeFeed\nmetadata: {name: spot}\nspec:\n"
        "  pipelineRef: {name: main}\n  exchange: {name: binance, market: Spot}\n"
        "  instruments: {symbols: [BTC-USDT]}\n  channels: [{name: Trades}]\n"
    )
    done = feedmill("up", "-f", str(manifest), "--no-embedded", cwd=tmp_path, REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 2
    assert "--no-embedded: DATABASE_URL is not set: set it, or leave --no-embedded out" in done.stderr


def test_version(tmp_path: Path) -> None:
    assert feedmill("version", cwd=tmp_path).stdout == f"{__version__}\n"
    assert feedmill("--version", cwd=tmp_path).stdout == f"{__version__}\n"


@pytest.mark.parametrize(("text", "value"), [("60", 60), ("60s", 60), ("500ms", 0.5), ("5m", 300), ("1.5h", 5400)])
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "s", "-1s", "0", "inf", "nan", "1x"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        seconds(text)


def test_numbers_for_people() -> None:
    assert [human_bytes(value) for value in (None, 0, 2048, 3 << 20, 5 << 30)] == [
        "?", "0 B", "2 KiB", "3 MiB", "5.0 GiB",
    ]  # fmt: skip
    assert [human_seconds(value) for value in (None, 0.25, 5, 5.25, 61, 3700)] == [
        "?", "250 ms", "5 s", "5.2 s", "1 min 01 s", "1 h 01 min",
    ]  # fmt: skip


def test_database_values_stay_exact() -> None:
    from datetime import UTC, datetime
    from decimal import Decimal

    assert plain(Decimal("0.00000001000")) == "0.00000001000"
    assert plain([Decimal("1E+3"), b"\x01", None]) == ["1000", "01", None]
    assert plain(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00+00:00"

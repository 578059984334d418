"""What is made of the lines a service writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedmill.local.logs import ServiceLog, readable
from feedmill.shared.log import register_secret


@pytest.mark.parametrize(
    ("line", "shown", "is_error"),
    [
        ('{"event": "connected", "level": "info", "service": "receiver", "host": "h"}', "connected host=h", False),
        ('{"event": "append.failed", "level": "error", "code": "OOM"}', "ERROR append.failed code=OOM", True),
        ('{"event": "slow", "level": "warning"}', "WARNING slow", False),
        ('{"event": "x", "level": "error", "exception": "Traceback\\n  a\\nKeyError: 7"}', "ERROR x KeyError: 7", True),
        ("plain words", "plain words", False),
        ("{not json", "{not json", False),
        ('{"no": "event"}', '{"no": "event"}', False),
        ("\x1b[31mred\x1b[0m", "red", False),
    ],
)
def test_lines_for_people(line: str, shown: str, is_error: bool) -> None:
    assert readable(line) == (shown, is_error)


def test_a_tracebacks_last_line_is_the_last_error(tmp_path: Path) -> None:
    log = ServiceLog("x", tmp_path / "x.log")
    for line in (b"Traceback (most recent call last):", b'  File "a.py", line 1', b"KeyError: 'b'", b"after"):
        log.write(line)
    log.close()
    assert log.last_error == "KeyError: 'b'"
    assert log.last_line == "after"


def test_files_stay_bounded_and_keep_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "x.log"
    echoed: list[tuple[str, str]] = []
    log = ServiceLog("x", path, echo=lambda name, text: echoed.append((name, text)), max_bytes=1000)
    for number in range(200):
        log.write(f"line {number:04d}".encode())
    log.close()
    older = path.with_name("x.log.1")
    assert path.stat().st_size <= 1000
    assert older.stat().st_size <= 1000
    kept = (older.read_text() + path.read_text()).splitlines()
    assert kept[-1] == "line 0199"
    assert kept == [f"line {number:04d}" for number in range(200 - len(kept), 200)]
    assert echoed[0] == ("x", "line 0000")
    assert len(echoed) == 200


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    register_secret("s3cret-of-this-test")
    log = ServiceLog("x", tmp_path / "x.log")
    log.write(b'{"event": "failed", "level": "error", "url": "redis://:s3cret-of-this-test@h:1/0"}')
    log.close()
    assert log.last_error is not None
    assert "s3cret" not in log.last_error


def test_a_log_that_cannot_be_written_is_let_go(tmp_path: Path) -> None:
    blocker = tmp_path / "logs"
    blocker.write_text("a file where the folder should be")
    log = ServiceLog("x", blocker / "x.log")
    log.write(b'{"event": "e", "level": "error"}')
    assert log.last_error == "ERROR e"

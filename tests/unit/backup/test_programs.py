"""PostgreSQL's programs: ones that are too old, what a failure of them asks for, and a script for an older server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from feedmill.general.backup.load import known_settings
from feedmill.general.backup.programs import ProgramError, Running
from feedmill.general.backup.wal import receive

SCRIPT = b"""--
-- PostgreSQL database dump
--
\\restrict abc

SET statement_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';

COPY public.letters (payload) FROM stdin;
SET transaction_timeout = 0;
\\.
"""


def write(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


async def test_a_receiver_that_is_older_than_the_server_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "pg_receivewal", "echo 'pg_receivewal (PostgreSQL) 15.4'")
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(ProgramError, match=r"server is PostgreSQL 18, .*pg_receivewal is of 15 .*set PG_BIN"):
        await receive("postgresql://nobody@127.0.0.1:1/x", tmp_path, "name", 18)


@pytest.mark.parametrize(
    ("name", "said", "remedy"),
    [
        ("pg_receivewal", "could not write 8192 bytes to WAL file: No space left on device", "the disk of the spool"),
        ("pg_basebackup", "could not open file: No space left on device", "the disk of the server"),
        ("pg_restore", "unsupported version (1.16) in file header", "a newer pg_dump made it: set PG_BIN"),
    ],
)
async def test_what_a_failure_asks_for(tmp_path: Path, name: str, said: str, remedy: str) -> None:
    write(tmp_path, name, f"echo '{name}: error: {said}' >&2; exit 1")
    running = await Running.start([tmp_path / name], {})
    with pytest.raises(ProgramError) as failure:
        await running.succeed()
    await running.stop()
    assert said in str(failure.value)
    assert remedy in str(failure.value)


async def test_one_that_is_stopped_is_gone(tmp_path: Path) -> None:
    write(tmp_path, "pg_dump", "exec sleep 600")
    running = await Running.start([tmp_path / "pg_dump"], {}, writes=True)
    async with asyncio.timeout(60):
        await running.stop()
    assert not Path(f"/proc/{running.pid}").exists()


def test_a_setting_that_an_older_server_does_not_know_is_left_out_of_a_script_and_no_row_is() -> None:
    known = known_settings(SCRIPT)
    assert known.count(b"SET transaction_timeout = 0;") == 1
    assert b"SET statement_timeout = 0;\nSET client_encoding" in known
    assert known.endswith(b"FROM stdin;\nSET transaction_timeout = 0;\n\\.\n")

"""A restore into a server that is older than the programs: what those set there, it does not know."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feedmill.general.backup.programs import ProgramError, major_of, program
from feedmill.general.backup.seal import SealedError
from feedmill.local.embedded import EmbeddedPostgres, binaries

REJOINED = {"gaps", "backups", "restores", "audit_log", "notifications", "notify_state"}
"""What a restore itself writes to."""
OLDER = next((folder for major in (15, 16) if (folder := Path(f"/usr/lib/postgresql/{major}/bin")).is_dir()), None)

pytestmark = pytest.mark.skipif(OLDER is None, reason="no PostgreSQL 15 or 16 is installed on this machine")


@pytest.fixture
def older_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of an empty server; the programs are the newer ones again."""
    with monkeypatch.context() as patched:
        patched.setenv("PG_BIN", str(OLDER))
        server = EmbeddedPostgres(tmp_path / "older", fsync=False)
        server.start()
    try:
        assert binaries.postgres_bin() != OLDER
        assert major_of(program("pg_restore")) >= 17
        yield server.url
    finally:
        server.kill()


@pytest.fixture
def older(depot: Any, older_url: str) -> Any:
    return dataclasses.replace(depot, target_url=older_url)


async def test_all_of_it_is_restored_and_as_it_was(older: Any) -> None:
    manifest = await older.back_up()
    made, _ = await older.restore(older.content(manifest))
    assert made.row_counts == manifest.row_counts
    found = await older.tally(older.target_url)
    same = {table: value for table, value in manifest.checksums.items() if table not in REJOINED}
    assert {"trades", "dead_letters", "credentials"} <= set(same)
    assert {table: found.hashes[table] for table in same} == same


async def test_one_that_fails_in_its_end_leaves_nothing(older: Any) -> None:
    manifest = await older.back_up()
    path = older.data(manifest)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(SealedError):
        await older.restore(older.content(manifest))
    assert await older.target_tables() == []


async def test_a_statement_that_the_server_refuses_leaves_nothing(older: Any) -> None:
    """A function that the dump makes is there already: what comes of that ends all of it."""
    taken = await older.fetch(
        older.url,
        "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY proname",
    )
    await older.fetch(older.target_url, taken[0])
    manifest = await older.back_up()
    async with asyncio.timeout(120):
        with pytest.raises(ProgramError, match=r"psql failed .*already exists"):
            await older.restore(older.content(manifest))
    assert len(await older.target_tables()) == 1, "only what was there before"

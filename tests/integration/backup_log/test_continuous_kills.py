"""kill -9 of what receives the log, and of a base backup, at any point, repeatedly: nothing is half-done or missing."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import Any

import pytest

SEED = 7
KILLS = 6


async def _ended(process: asyncio.subprocess.Process, number: int) -> bytes:
    process.send_signal(number)
    _, said = await process.communicate()
    return said


@pytest.mark.slow
async def test_killed_again_and_again_under_load(stage: Any) -> None:
    dice = random.Random(SEED)
    writing = True

    async def load() -> None:
        while writing:
            await stage.write(3000)

    arguments = ("run", "backup", "--pipeline", "default/main", "--spool-dir", str(stage.folder / "spool"))
    loading = asyncio.create_task(load())
    try:
        for _ in range(KILLS):
            process = await stage.command(*arguments)
            draining = asyncio.create_task(process.communicate())
            # From its first moments on to some files later, a base backup among it.
            await asyncio.sleep(dice.uniform(0.5, 6.0))
            process.send_signal(signal.SIGKILL)
            await draining
        process = await stage.command(*arguments)
        draining = asyncio.create_task(process.communicate())

        async def based() -> bool:
            return bool(list((stage.backups / "default/main/base").rglob("manifest.json")))

        await stage.until(based, 120)
        await stage.write(20_000)
    finally:
        writing = False
        await loading
    at_last = await stage.tally()
    process.send_signal(signal.SIGTERM)
    _, said = await draining
    assert process.returncode == 0, said.decode()[-2000:]
    rows = await stage.sql("SELECT string_agg(state, ' ' ORDER BY started_ns) FROM backups")
    assert set(rows.split()) <= {"failed", "succeeded"}, "no row says for ever that it runs"
    stage.destroy()
    async with stage.restored() as content:
        assert content.row_counts["dead_letters"] == at_last.rows["dead_letters"]
        assert content.hashes["dead_letters"] == at_last.hashes["dead_letters"]


async def test_a_base_backup_that_is_killed_leaves_none(stage: Any) -> None:
    await stage.write(100_000)
    for patience in (0.6, 1.0, 1.6):
        process = await stage.command("backup", "run", "--kind", "base")
        draining = asyncio.create_task(process.communicate())
        await asyncio.sleep(patience)
        process.send_signal(signal.SIGKILL)
        await draining
    assert not list(stage.backups.rglob("manifest.json"))
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(lambda: bool(watch.bases.state.last_id))
    assert await stage.sql("SELECT count(*) FROM backups WHERE state = 'running'") == 0


async def test_a_base_backup_without_its_log_fails_and_leaves_nothing(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feedmill.general.backup.base import BaseFailed, run_base
    from feedmill.shared.database_url import DatabaseUrl

    target = stage.target()
    with pytest.raises(BaseFailed, match="did not reach the destination within 1 s: is feedmill run backup running"):
        await run_base(DatabaseUrl(stage.url), target.store, await target.ring(), target.names, log_patience=1.0)
    assert not [path for path in stage.backups.rglob("*") if path.is_file()]
    assert await stage.sql("SELECT state FROM backups") == "failed"
    assert "is feedmill run backup running" in await stage.sql("SELECT error FROM backups")

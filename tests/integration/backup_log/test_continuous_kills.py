"""kill -9 of what receives the log, and of a base backup, at any point, repeatedly: nothing is half-done or missing."""

from __future__ import annotations

import asyncio
import random
import re
import signal
from typing import Any

import pytest
from faults.files import files_below

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
            return bool(files_below(stage.backups, "*/base/*/manifest.json"))

        await stage.until(based, 120)
        await stage.write(20_000)
    finally:
        writing = False
        await loading
    await stage.caught_up()

    async def told() -> bool:
        """Also of a base backup that was stored a moment ago, by this process or by one that was killed then."""
        return not await stage.sql("SELECT count(*) FROM backups WHERE state = 'running'")

    await stage.until(told)
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
    await stage.keep()
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


async def test_a_base_backup_without_its_log_fails_and_leaves_nothing(stage: Any) -> None:
    from feedmill.general.backup.base import BaseFailed, run_base
    from feedmill.shared.database_url import DatabaseUrl

    target = stage.target()

    async def fails(why: str) -> None:
        with pytest.raises(BaseFailed, match=why):
            await run_base(DatabaseUrl(stage.url), target.store, await target.ring(), target.names, log_patience=1.0)
        assert not [path for path in stage.backups.rglob("*") if path.is_file()]
        assert await stage.sql("SELECT count(*) FROM backups WHERE state <> 'failed'") == 0
        error = await stage.sql("SELECT error FROM backups ORDER BY started_ns DESC LIMIT 1")
        assert re.search(why, error)

    await fails("for 1 s there was no replication slot .* is feedmill run backup running")
    await stage.keep()
    await fails("did not reach the destination within 1 s: is feedmill run backup running")


async def test_a_base_backup_whose_log_is_begun_anew_fails_at_once(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from feedmill.general.backup import base
    from feedmill.shared.database_url import DatabaseUrl

    monkeypatch.setattr(base, "_LOOK_AT_SLOT", 0.0)
    await stage.keep()
    target = stage.target()
    waits = asyncio.Event()

    def progress(what: str, _done: int, _expected: int) -> None:
        if what == "waiting for its log":
            waits.set()

    making = asyncio.create_task(
        base.run_base(DatabaseUrl(stage.url), target.store, await target.ring(), target.names, progress=progress)
    )
    async with asyncio.timeout(60):
        await waits.wait()
        await stage.keep(anew=True)
        with pytest.raises(base.BaseFailed, match=r"let go of [0-9A-F]{24}, since the log was begun anew"):
            await making
    assert not [path for path in stage.backups.rglob("*") if path.is_file()]

"""The commands, as a user or a pod runs them: watch, list, verify (drills take turns), restore to a moment, prune."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from faults.files import files_below

from feedmill.general.backup import locks
from feedmill.local.embedded import EmbeddedPostgres


async def done(stage: Any, *arguments: str, **more: Any) -> str:
    process = await stage.command("backup", *arguments, **more)
    output, said = await process.communicate()
    assert process.returncode == 0, said.decode()[-3000:]
    return str(output.decode())


def shown(at_ns: int) -> str:
    """As ``--to`` takes it."""
    at = datetime.fromtimestamp(at_ns // 10**9, UTC).replace(microsecond=at_ns % 10**9 // 1000)
    return at.isoformat(timespec="microseconds")


@pytest.mark.slow
async def test_from_watching_to_a_restore(stage: Any, tmp_path: Path) -> None:
    watching = await stage.command("backup", "watch", "--data-dir", str(tmp_path / "here"))
    draining = asyncio.create_task(watching.communicate())

    async def based() -> bool:
        return bool(files_below(stage.backups, "*/base/*/manifest.json"))

    await stage.until(based)
    await stage.write()
    moment = await stage.moment()
    then = await stage.tally()
    await stage.write()
    await done(stage, "run")
    watching.send_signal(signal.SIGINT)
    _, said = await draining
    assert watching.returncode == 0, said.decode()[-3000:]
    assert (tmp_path / "here" / "backup-spool" / "watch").is_dir()

    listed = json.loads(await done(stage, "list", "-o", "json"))["backups"]
    kinds = {each["kind"]: each for each in listed}
    assert set(kinds) == {"logical", "base"}
    assert kinds["base"]["anyMomentTo"] > shown(moment)
    assert kinds["logical"]["anyMomentTo"] is None
    drilled = [json.loads(await done(stage, "verify", "-o", "json"))["backupId"] for _ in range(2)]
    assert drilled == [kinds["logical"]["id"], kinds["base"]["id"]], "they take turns"
    listed = await done(stage, "list")
    assert listed.count("proven") == 2
    assert "any moment from" in listed

    stage.destroy()
    with EmbeddedPostgres(tmp_path / "other", fsync=False) as target:
        to = shown(moment)
        told = json.loads(await done(stage, "restore", "--to", to, "-o", "json", url=target.url))
        assert told["backupId"] == kinds["base"]["id"]
        found = await stage.tally(target.url)
        assert found.hashes["dead_letters"] == then.hashes["dead_letters"]
        assert await stage.sql("SELECT to_ns FROM restores WHERE mode = 'restore'", url=target.url) == moment
        assert await stage.sql("SELECT state FROM backups WHERE kind = 'base'", url=target.url) == "succeeded"
    assert not list(stage.folder.glob("feedmill-*")), "nothing is left of scratch servers"

    # An unfinished file that was on its way when the process was asked to end may lie beside the one stored after it.
    leftovers = len((await stage.log()).leftovers)
    pruned = json.loads(await done(stage, "prune", "-o", "json"))
    assert all(each["keep"] for each in pruned["backups"])
    assert pruned["walFiles"] - leftovers <= 1, "only what was written before the base backup"
    assert "any moment from" in await done(stage, "list")


@pytest.mark.slow
async def test_a_restore_that_is_killed_while_it_replays_leaves_the_target_alone(stage: Any, tmp_path: Path) -> None:
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(lambda: bool(watch.bases.state.last_id))
        await stage.write(20_000)
        at_last = await stage.tally()
        await stage.caught_up()
    with EmbeddedPostgres(tmp_path / "other", fsync=False) as target:
        # None comes to its end before it is killed: the target cannot be marked for as long as somebody migrates it.
        migrating = await asyncpg.connect(target.url)
        await migrating.execute("SELECT pg_advisory_lock($1)", locks.MIGRATING)
        for reached in ("", "/data/pgdata/base", "/data/pgdata/postmaster.pid"):
            # What one left that was killed before is removed when the next one makes its own.
            before = {str(path) for path in tmp_path.glob("feedmill-replay-*")}
            process = await stage.command("backup", "restore", "--scratch-dir", str(tmp_path), url=target.url)
            draining = asyncio.create_task(process.communicate())
            await stage.until(
                lambda before=before, reached=reached: any(
                    str(path).removesuffix(reached) not in before
                    for path in tmp_path.glob(f"feedmill-replay-*{reached}")
                )
            )
            process.send_signal(signal.SIGKILL)
            await draining
        await migrating.close()
        await done(stage, "restore", "--scratch-dir", str(tmp_path), url=target.url)
        found = await stage.tally(target.url)
        assert found.hashes["dead_letters"] == at_last.hashes["dead_letters"]
    assert not list(tmp_path.glob("feedmill-replay-*")), "the next one removed what was left"


async def test_run_backup_without_anything_to_do_is_refused(stage: Any) -> None:
    stage.write_manifest(enabled=False)
    process = await stage.command("run", "backup", "--pipeline", "default/main", "--spool-dir", str(stage.folder / "s"))
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"spec.backup.continuous.enabled is false" in said
    assert b"--schedules" in said

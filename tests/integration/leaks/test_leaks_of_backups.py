"""The credentials of a backup's bucket, the key that seals backups and the bot's token are planted. Backups are made,
listed, proven and refused, the log is received, uploaded and held up: none of the secrets is found anywhere."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from leak_bed import PIPELINE, TELLS, USER, Bed, bed, until
from leak_buckets import Bucket, make_bucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BACKUP = """  backup:
    schedule: "0 3 1 1 *"
    destination: {destination}
    encryption: {{keySecretRef: {{name: backup-key, key: key}}}}
    continuous: {{enabled: true, baseSchedule: "0 2 1 1 *", spool: {{size: 1Gi}}}}
    verify: {{suspend: true}}
"""
WRITE = "SELECT pg_logical_emit_message(true, 'leaks', $1), pg_switch_wal()"


@pytest.fixture(params=["s3", "b2"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_backups_in_a_bucket(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bed(tmp_path, monkeypatch) as world:
        bucket = make_bucket(kind, world.plant, monkeypatch)
        try:
            await _prepare(world, bucket)
            await _people_back_up(world)
            await _the_log_goes_there(world)
            await _it_is_tired(world, bucket)
            await _it_refuses(world, bucket)
            await _credentials_change(world, bucket)
            bucket.plant_late()
            await world.look_at_services()
            await world.look_at_postgres()
            await world.stop()
            stored = await bucket.objects()
        finally:
            await world.stop()
            bucket.stop()
    for name, content in stored:
        world.scanner.look("names of objects", name)
        world.scanner.look(f"object {name.rpartition('/')[2]}", content)
    for text in world.chat.texts:
        world.scanner.look("messages", text)
    _look_at_files(world)

    assert bucket.refused
    assert world.scanner.kinds == {
        *bucket.kinds, "backup key", "bot token", "redis password", "postgres password", "KEK"
    }  # fmt: skip
    assert world.scanner.leaks == []
    places = [f"{place} of {name}" for name in ("backup", "notify") for place in ("/health", "/metrics", "arguments")]
    places += [f"{name}.log" for name in ("backup", "notify")]
    places += [f"output of feedmill backup {name}" for name in ("list", "prune", "restore", "run", "verify")]
    places += ["errors of feedmill backup run", "output of feedmill doctor -f", "status.json", "messages"]
    places += ["table backups", "table restores", "table notifications", "object data", "object manifest.json"]
    assert [place for place in places if not world.scanner.looked.get(place)] == []
    assert {name.split("/")[3] for name, _ in stored} == {"base", "logical", "wal", "drills"}


async def _prepare(world: Bed, bucket: Bucket) -> None:
    await world.command("migrate")
    await _sql(world, f"ALTER ROLE {USER} REPLICATION")
    key = base64.b64encode(os.urandom(32)).decode()
    world.plant("backup key", key)
    world.secret("backup-key", key=f"b1 {key}\n")
    world.secret("bucket", **bucket.files())
    world.manifest.write_text(
        PIPELINE + TELLS.format(url=world.chat.url) + BACKUP.format(destination=bucket.spec())
    )  # fmt: skip


async def _sql(world: Bed, statement: str, *arguments: Any) -> Any:
    connection = await asyncpg.connect(world.postgres.url)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


def _asked(world: Bed) -> tuple[str, ...]:
    return ("-c", str(world.manifest), "--secrets-dir", str(world.secrets))


async def _people_back_up(world: Bed) -> None:
    asked = _asked(world)
    await world.command("backup", "run", *asked, "--status-file", str(world.work / "status.json"))
    await world.told("backup", "verify", *asked)
    for words in (("list",), ("list", "-o", "json"), ("prune", "--dry-run"), ("prune",)):
        assert await world.told("backup", *words, *asked)
    assert "is not empty" in await world.told("backup", "restore", *asked, code=2)
    assert "key b1 seals" in await _doctor(world)
    assert json.loads((world.work / "status.json").read_text())["phase"] == "Succeeded"


async def _doctor(world: Bed) -> str:
    said = await world.told("doctor", "-f", str(world.manifest), "--secrets-dir", str(world.secrets), code=None)
    assert "backups of default/main" in said
    return said


async def _health(world: Bed) -> dict[str, Any]:
    """Once it tells: one that has just begun does not listen yet, and has nothing to tell before it has its bucket."""

    async def told() -> dict[str, Any]:
        text = await world.page("backup", "health")
        world.scanner.look("/health of backup", text)
        return dict(json.loads(text)["backup"]) if text else {}

    return dict(await until(told, "told by backup"))


async def _the_log_goes_there(world: Bed) -> None:
    await world.start("notify", "notify", "--pipeline", "default/main", "--processes", str(world.work))
    await world.start("backup", "backup", "--pipeline", "default/main", "--spool-dir", str(world.work / "spool"))

    async def based() -> bool:
        found = await _health(world)
        return bool(found["base"]["last"]) and found["uploads"]["files"] > 0

    await until(based, "made a base backup")
    await world.look_at_services()


async def _it_is_tired(world: Bed, bucket: Bucket) -> None:
    bucket.tire()
    before = bucket.refused
    await _sql(world, WRITE, "while it is tired")
    await until(lambda: bucket.refused > before + 2, "asked again and again")
    await until(lambda: "backup.store_away" in world.log_of("backup"), "told in the log")
    await world.look_at_services()
    bucket.rest()


async def _it_refuses(world: Bed, bucket: Bucket) -> None:
    """Everybody who asks is told what he said."""
    bucket.revoke()
    await _sql(world, WRITE, "while it refuses")

    async def failing() -> bool:
        return "check the" in (await _health(world))["uploads"]["error"]

    await until(failing, "refused")
    asked = _asked(world)
    await world.command("backup", "run", *asked, "--status-file", str(world.work / "status.json"), code=2)
    for words in (("list",), ("verify",), ("prune",), ("run",)):
        assert "check the" in await world.told("backup", *words, *asked, code=2)
    assert "none would be made" in await _doctor(world)
    await until(lambda: any("backup" in text.lower() for text in world.chat.texts), "told by Telegram")
    await world.look_at_services()


async def _credentials_change(world: Bed, bucket: Bucket) -> None:
    before = (await _health(world))["uploads"]["lastNs"]
    world.secret("bucket", **bucket.files())

    async def going_on() -> bool:
        uploads = (await _health(world))["uploads"]
        return not uploads["error"] and uploads["lastNs"] > before

    await until(going_on, "uploaded again")
    await world.command("backup", "run", *_asked(world))


def _look_at_files(world: Bed) -> None:
    """Of all that was written; and that the scanner finds what is there, in the Secrets' own files."""
    scanner = world.scanner
    servers = (world.work / "redis" / "password", world.work / "postgres" / "password")
    scanner.look_folder(world.work, frozenset(servers))
    before = list(scanner.leaks)
    held = {leak.kind for leak in scanner.look_folder(world.secrets)}
    assert held >= {"backup key", "bot token"}
    assert len(held) >= 6, "those of the bucket, and of the servers"
    scanner.leaks[:] = before

"""A database backed up to B2 and S3 over HTTP while they fail, proven and restored from there: the real dump, the real
clients, servers with faults."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

from b2_server import BUCKET, B2Server
from faults_http import Fault
from s3_server import S3Server
from store_helpers import bucket_of, remote

from feedmill.cli.migrate import migrate_sync
from feedmill.general.backup.prune import prune
from feedmill.general.backup.stores.base import StoreAway
from feedmill.general.backup.verify import drill
from feedmill.resources.backup_policy import BackupRetention

PART_SENT = r"PUT .*partNumber=|POST /upload/part/"
READ = r"GET /feedmill-test/home.*/data|GET /file/.*/data"
DAY = 86_400 * 10**9


@pytest.fixture(params=["s3", "b2"])
def server(request: pytest.FixtureRequest) -> Iterator[S3Server | B2Server]:
    found = S3Server() if request.param == "s3" else B2Server()
    yield found
    found.stop()


def tired(server: S3Server | B2Server) -> None:
    """What a bad day looks like: parts refused, unanswered, a token that ends, downloads that are cut."""
    server.faults.add(
        Fault(PART_SENT, spare=2, times=2, status=503),
        Fault(PART_SENT, spare=1, times=1, unanswered=True),
        Fault(r"manifest\.json|POST /upload/(?!part)", times=1, status=503),
        Fault(READ, times=1, cut_after=6_000),
        Fault(READ, times=1, cut_after=10_000),
    )
    if isinstance(server, B2Server):
        server.faults.add(Fault(PART_SENT, spare=1, times=1, status=401, code="expired_auth_token"))


async def migrate_to(url: str, to: str) -> None:
    await asyncio.to_thread(migrate_sync, url, to=to)


@pytest.mark.slow
async def test_backed_up_proven_and_restored_on_a_bad_day(
    server: S3Server | B2Server, depot: Any, tmp_path: Path
) -> None:
    store = remote(bucket_of(server), patience=60.0)
    depot = dataclasses.replace(depot, store=store)
    tired(server)
    manifest = await depot.back_up()
    assert manifest.size_bytes > 20_000
    assert server.faults.count(PART_SENT) > manifest.size_bytes // 4096 + 2

    done = await drill(
        depot.picked(manifest), store, depot.names, depot.url, migrate_to, folder=tmp_path, log=depot.log
    )
    assert done.drill.passed
    await depot.restore(depot.content(manifest))
    restored = await depot.fetch(depot.target_url, "SELECT count(*) FROM trades")
    assert restored == [manifest.row_counts["trades"]]
    (entry,) = (await depot.catalogue()).entries
    assert entry.proven
    await store.close()


async def test_a_store_that_stays_away_fails_the_backup_and_leaves_none(
    server: S3Server | B2Server, depot: Any
) -> None:
    store = remote(bucket_of(server), patience=0.5)
    depot = dataclasses.replace(depot, store=store)
    server.faults.add(Fault(PART_SENT, times=10**6, status=503))
    with pytest.raises(StoreAway):
        await depot.back_up()
    server.faults.clear()
    assert (await depot.catalogue()).entries == ()
    assert server.versions() == [], "nor is there a part"
    assert await depot.fetch(depot.url, "SELECT state FROM backups") == ["failed"]
    assert (await depot.back_up()).size_bytes > 0
    await store.close()


def b2_pipeline(server: B2Server, depot: Any, folder: Path) -> tuple[str, ...]:
    """Options for the commands."""
    path = depot.manifest_file(folder)
    document = json.loads(path.read_text())
    document["spec"]["backup"]["destination"] = {
        "b2": {"bucket": BUCKET, "prefix": "home", "realm": server.realm, "credentialsSecretRef": {"name": "b2"}}
    }
    path.write_text(json.dumps(document))
    (folder / "secrets" / "b2").mkdir()
    (folder / "secrets" / "b2" / "keyId").write_text(server.key_id)
    (folder / "secrets" / "b2" / "applicationKey").write_text(server.application_key)
    return "-c", str(path), "--secrets-dir", str(folder / "secrets")


@pytest.mark.slow
async def test_kill_9_while_an_upload_is_on_its_way(depot: Any, kit: Any, tmp_path: Path) -> None:
    server = B2Server()
    options = b2_pipeline(server, depot, tmp_path)
    store = remote(bucket_of(server, prefix="home/"))
    hold = threading.Event()
    server.faults.add(Fault("POST /upload/", times=10**6, hold=hold))
    process = await kit.command("run", *options, url=depot.url)
    async with asyncio.timeout(60):
        while not server.faults.count("POST /upload/"):
            await asyncio.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    await process.communicate()
    hold.set()
    server.faults.clear()
    depot = dataclasses.replace(depot, store=store)
    assert (await depot.catalogue()).entries == ()

    again = await kit.command("run", *options, url=depot.url)
    out, err = await again.communicate()
    assert again.returncode == 0, err.decode()
    assert server.application_key not in (out + err).decode()
    (entry,) = (await depot.catalogue()).entries
    assert entry.whole
    kept = [entry.manifest.object, depot.names.manifest(entry.manifest.id)]
    await prune(store, depot.names, BackupRetention(), entry.manifest.ended_ns + 3 * DAY)
    assert [found.name for found in await store.list("")] == kept
    await store.close()
    server.stop()

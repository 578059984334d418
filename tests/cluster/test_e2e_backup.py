"""A real node, the chart, exchanges with a ledger, backups on a volume: made by schedule, drilled, and restored to a
moment after somebody dropped every table. Nothing may be lost that is not told.

``make e2e`` runs it; the order is the file's, since all tests share one running pipeline.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from clusterkit import samples
from clusterkit.api import Object
from clusterkit.bed import Bed
from clusterkit.exchange import VENUES, Exchange
from clusterkit.images import Images
from clusterkit.install import Installed
from clusterkit.waiting import until
from clusterkit.world import MANAGED, World

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]
NAMESPACE = "vault"
PATIENCE = 300.0
"""Seconds: a restore starts servers of its own, and machines are slow."""
RATE = 40.0
RARE = "0 0 1 1 *"


class Vault(Bed):
    """A pipeline with a feed of each venue, and a volume for its backups."""

    @property
    def all(self) -> tuple[str, ...]:
        return ("fpl/main", *(f"xf/{feed_of(venue)}" for venue in VENUES))

    def make(self, kind: str, name: str, **spec: Any) -> None:
        plural = {"FeedBackup": "feedbackups", "FeedRestore": "feedrestores"}[kind]
        metadata = {"name": name, "namespace": NAMESPACE}
        asked = {"pipelineRef": {"name": "main"}} | spec
        self.cluster.api.create(
            plural, {"apiVersion": samples.VERSION, "kind": kind, "metadata": metadata, "spec": asked}
        )

    def done(self, what: str) -> Object:
        """Until a run has succeeded; its status."""

        def ended() -> Object | None:
            status = self.world.status(what)
            return status if status.get("phase") in ("Succeeded", "Failed") else None

        try:
            status = until(ended, PATIENCE, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.world.status(what)}\n{self.words(what)}") from None
        assert status["phase"] == "Succeeded", f"{status}\n{self.words(what)}"
        return status

    def words(self, what: str) -> str:
        job = self.world.status(what).get("job", "")
        return self.cluster.kubectl("logs", f"job/{job}", "-n", NAMESPACE, "--tail=40", check=False).stdout

    def sql(self, text: str) -> list[Any]:
        async def ask() -> list[Any]:
            connection = await asyncpg.connect(self.database_url())
            try:
                return list(await connection.fetch(text))
            finally:
                await connection.close()

        return asyncio.run(ask())


def feed_of(venue: str) -> str:
    return venue.lower().replace("/", "-")


def now(more: int = 0) -> str:
    """The second that runs, or one ``more`` seconds later."""
    return (datetime.now(UTC) + timedelta(seconds=more)).strftime("%Y-%m-%dT%H:%M:%SZ")


def at_work(vault: Vault) -> list[str]:
    """Pods that may be in the database, those that are ending among them: DROP would meet their locks."""
    return [
        pod["metadata"]["name"]
        for pod in vault.cluster.api.list("pods", NAMESPACE, MANAGED)
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] in ("processor", "backup", "maintenance")
        and pod["status"]["phase"] in ("Pending", "Running")
    ]


@pytest.fixture(scope="module")
def vault(installed: Installed, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    cluster, folder = installed.cluster, tmp_path_factory.mktemp("exchange")
    exchange = Exchange(folder, cluster.addresses["host"], RATE)
    exchange.start()
    made = Vault(cluster, World(cluster, NAMESPACE), exchange, images)
    try:
        cluster.kubectl("create", "namespace", NAMESPACE)
        secrets(made, folder)
        (folder / "vault.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests(made)}))
        cluster.kubectl("apply", "-f", str(folder / "vault.json"))
        yield made
        print("\n" + "\n".join(made.told))
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    finally:
        exchange.stop()


def secrets(vault: Vault, folder: Path) -> None:
    """The key, as its page says it is made."""
    key = folder / "secrets" / "backup-key" / "key"
    subprocess.run([sys.executable, "-m", "feedmill.cli.main", "backup", "key", str(key)], check=True)
    vault.cluster.kubectl("create", "secret", "generic", "backup-key", f"--from-file=key={key}", "-n", NAMESPACE)


def manifests(vault: Vault) -> list[Object]:
    servers = {
        "redis": {"managed": {"storage": "1Gi", "memory": "256Mi"}, "circuitBreaker": {"resetTimeout": "2s"}},
        "postgres": {"managed": {"storage": "2Gi"}, "circuitBreaker": {"resetTimeout": "2s"}},
    }
    backup = {
        "schedule": "* * * * *",
        "destination": {"folder": {"path": "/backups", "claimName": "backups"}},
        "encryption": {"keySecretRef": {"name": "backup-key", "key": "key"}},
        "continuous": {"enabled": True, "baseSchedule": RARE, "spool": {"size": "512Mi"}},
        "verify": {"schedule": RARE},
        "scratch": {"size": "2Gi"},
    }
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "backups", "namespace": NAMESPACE},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }  # fmt: skip
    found = [claim, samples.pipeline("main", NAMESPACE, **servers, backup=backup, image=vault.images.services[0])]
    for venue in VENUES:
        exchange, market = venue.split("/")
        endpoints = {key: vault.exchange.endpoints[venue][key] for key in ("stream", "rest")}
        symbols = ["BTC-PERPETUAL"] if exchange == "deribit" else ["BTC-USDT"]
        where = {"name": exchange, "market": market, "endpoints": endpoints}
        fewer = {"receiver": {"reconnect": {"maxBackoff": "2s"}}, "distributor": {"gapGrace": "1s"}}
        found.append(samples.feed(feed_of(venue), NAMESPACE, exchange=where, instruments={"symbols": symbols}, **fewer))
    return found


def test_backups_come_by_schedule(vault: Vault) -> None:
    vault.ready(PATIENCE)
    vault.exchange.until_emitted(1000)

    def made() -> list[Object]:
        found = vault.cluster.api.list("feedbackups", NAMESPACE)
        good = [each for each in found if (each.get("status") or {}).get("phase") == "Succeeded"]
        return [each for each in good if each["status"].get("rows", 0) > 100]

    (backup, *_) = until(made, PATIENCE, what="a backup with rows")
    status = backup["status"]
    assert status["sizeBytes"] > 1000
    assert len(status["sha256"]) == 64
    assert status["object"].startswith(f"{NAMESPACE}/main/logical/")
    # It is healthy once the log is received, too.
    vault.world.wait("fpl/main", "BackupHealthy", timeout=PATIENCE)
    shown = vault.cluster.kubectl("get", "fbk", "-n", NAMESPACE).stdout
    print(shown)
    assert backup["metadata"]["name"] in shown
    # Once is enough: the machine has other things to do.
    vault.world.patch("fpl/main", {"spec": {"backup": {"schedule": RARE}}})


def test_a_drill_proves_the_newest_one(vault: Vault) -> None:
    vault.make("FeedRestore", "drill", mode="Verify")
    status = vault.done("frs/drill")
    vault.told.append(f"drill: {status}")
    assert status["tables"] > 5
    assert status["rows"] > 100
    until(lambda: vault.world.status("fpl/main")["backup"].get("lastVerified"), 120, what="the drill in the pipeline")
    print(vault.cluster.kubectl("get", "frs", "-n", NAMESPACE).stdout)


def test_a_backup_of_ones_own(vault: Vault) -> None:
    vault.make("FeedBackup", "before-the-accident")
    status = vault.done("fbk/before-the-accident")
    assert status["keyId"]
    assert status["schemaVersion"]


def test_dropped_tables_come_back_as_of_a_moment(vault: Vault) -> None:
    begun = now()
    until(lambda: vault.world.status("fpl/main")["backup"].get("continuousTo", "") > begun, PATIENCE,
          what="the log at the destination")  # fmt: skip
    # A hole may be seen for a moment before that which fills it.
    vault.caught_up("before the accident", PATIENCE)
    (kept,) = vault.sql("SELECT count(*) AS rows FROM trades")
    # A moment is of whole seconds here: the next one, so that what was counted is before it.
    moment = now(1)
    until(lambda: vault.world.status("fpl/main")["backup"].get("continuousTo", "") > moment, PATIENCE,
          what="the log beyond the moment")  # fmt: skip
    # The accident.
    vault.world.patch("fpl/main", {"spec": {"suspend": True}})
    until(lambda: not at_work(vault), PATIENCE, what="the pods to end")
    vault.sql("DROP SCHEMA public CASCADE")
    vault.sql("CREATE SCHEMA public")
    vault.make("FeedRestore", "back", mode="Restore", toTime=moment)
    status = vault.done("frs/back")
    vault.told.append(f"restore: {status}")
    assert status["restoredTo"] <= moment
    assert status["gaps"] > 0
    (found,) = vault.sql("SELECT count(*) AS rows FROM trades")
    assert found["rows"] >= kept["rows"]
    vault.world.patch("fpl/main", {"spec": {"suspend": False}})
    vault.ready(PATIENCE)
    after = vault.settled("restored", timeout=PATIENCE)
    assert after.lost == 0, after.notes
    assert after.doubled == 0, after.notes
    assert after.wrong == 0, after.notes
    print(vault.cluster.kubectl("get", "fpl,fbk,frs", "-n", NAMESPACE).stdout)

"""The continuous backup of a database of 5 GB: receiving and uploading the log, the base backup, a restore; memory.

``make bench-backup ARGS=--continuous`` is this. Memory is that of the process with the PostgreSQL programs it runs, not
that of servers.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench import backup, machine
from feedmill.cli.migrate import migrate_sync
from feedmill.local.embedded import EmbeddedPostgres

PROGRAMS = ("pg_basebackup", "pg_receivewal", "pg_dump", "pg_restore")
PATIENCE = 1800.0
"""Seconds for anything here."""


class Receiver:
    """``feedmill run backup`` under way, looked at."""

    def __init__(self, url: str, folder: Path) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "DATABASE_URL"))}
        command = [sys.executable, "-m", "feedmill.cli.main", "run", "backup", "--pipeline", "default/main"]
        command += ["-c", str(folder / "pipeline.yaml"), "--secrets-dir", str(folder / "secrets")]
        command += ["--spool-dir", str(folder / "spool"), "--port-file", str(folder / "port")]
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(command, env={**own, "DATABASE_URL": url}, stdout=self._log, stderr=self._log)
        self._seen = psutil.Process(self._process.pid)
        self._folder = folder
        self.peak = 0

    def _look(self) -> dict[str, Any]:
        from urllib.request import urlopen

        self.peak = max(self.peak, _memory(self._seen))
        if self._process.poll() is not None:
            raise SystemExit(f"bench-backup: feedmill run backup ended: {(self._folder / 'log').read_text()[-2000:]}")
        try:
            port = int((self._folder / "port").read_text())
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)["backup"]
                return found
        except (OSError, ValueError, KeyError):
            return {}

    def until(self, what: str, holds: Any) -> float:
        """Seconds until the section ``backup`` of its health is so."""
        began = time.monotonic()
        while not holds(self._look()):
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"bench-backup: {what} did not come about in {PATIENCE:g} s: {self._look()}")
            time.sleep(0.2)
        return time.monotonic() - began

    def stop(self) -> float:
        began = time.monotonic()
        self._process.terminate()
        self._process.wait(60)
        self._log.close()
        return time.monotonic() - began


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        total = process.memory_info().rss
        for child in process.children(recursive=True):
            if child.name() in PROGRAMS:
                total += child.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def declare(folder: Path) -> None:
    backup.declare(folder)
    path = folder / "pipeline.yaml"
    document = json.loads(path.read_text())
    document["spec"]["backup"]["continuous"] = {"enabled": True, "spool": {"size": "4Gi"}}
    path.write_text(json.dumps(document))


def main(gigabytes: float) -> int:
    """``gigabytes``: of the database when its base backup is made; a tenth more is written after that."""
    console = Console(highlight=False, width=max(Console().width, 120))
    busy = machine.busy_share()
    with tempfile.TemporaryDirectory(prefix="bench-backup-") as name:
        folder = Path(name)
        declare(folder)
        server = EmbeddedPostgres(folder / "postgres", options={"max_wal_size": "4GB"})
        server.start()
        try:
            migrate_sync(server.url)
            size = asyncio.run(backup.fill(server.url, int(gigabytes * 1e9)))
            receiver = Receiver(server.url, folder)
            base = receiver.until("a base backup", lambda told: bool(told.get("base", {}).get("last")))
            stored = sum(path.stat().st_size for path in (folder / "backups").rglob("base/*/data"))
            base_peak, receiver.peak = receiver.peak, 0
            files = receiver._look()["uploads"]["files"]
            began = time.monotonic()
            asyncio.run(backup.more(server.url, int(size + gigabytes * 1e8)))
            writing = time.monotonic() - began
            lag = receiver.until(
                "the upload of the log", lambda told: told and not told["uploads"]["waitingFiles"]
                and told["log"]["keptByServerBytes"] < 32 << 20,
            )  # fmt: skip
            files = receiver._look()["uploads"]["files"] - files
            log_peak = receiver.peak
            receiver.stop()
            asyncio.run(backup._create(server))
            other = server.url_for("restored")
            restore = backup.run("restore", url=other, folder=folder, programs=PROGRAMS)
            before, after = asyncio.run(backup.tallied(server.url)), asyncio.run(backup.tallied(other))
        finally:
            server.stop()
    same = all(
        (after.rows[each], after.hashes[each]) == (before.rows[each], before.hashes[each])
        for each in before.rows
        if each not in backup.REJOINED
    )
    console.print(f"database: {size / 1e9:.2f} GB on disk; others use {busy:.0%} of the CPU")
    table = Table()
    for column in ("", "seconds", "MB/s", "memory peak", "what"):
        table.add_column(column, justify="right")
    log = files * 16 * 2**20
    table.add_row("base backup", f"{base:.1f}", f"{size / 1e6 / base:.1f}", backup._mib(base_peak),
                  f"of the server's files, stored in {stored / 1e9:.2f} GB")  # fmt: skip
    table.add_row("log", f"{writing + lag:.1f}", f"{log / 1e6 / (writing + lag):.1f}", backup._mib(log_peak),
                  f"{files} files while rows were written; all stored {lag:.1f} s after the last one")  # fmt: skip
    table.add_row("restore", f"{restore.seconds:.1f}", f"{size / 1e6 / restore.seconds:.1f}",
                  backup._mib(restore.peak), "unpacked, replayed, dumped, restored")  # fmt: skip
    console.print(table)
    most = max(base_peak, log_peak, restore.peak)
    console.print(
        f"restored {'equal' if same else 'NOT EQUAL'}; memory goal {backup._mib(backup.GOAL)}: "
        f"{'met' if most <= backup.GOAL else 'NOT met'}"
    )
    return 0 if same and most <= backup.GOAL else 1

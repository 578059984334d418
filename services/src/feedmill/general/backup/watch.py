"""A continuous backup: the log is received, uploaded as soon as a file of it is whole, and hangs on a base backup."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from feedmill.general.backup.bases import Bases
from feedmill.general.backup.receiving import Receiver
from feedmill.general.backup.spool import Spool
from feedmill.general.backup.target import Target
from feedmill.general.backup.upload import Uploader
from feedmill.shared.database_url import DatabaseUrl

CATCH_UP, LAST_UPLOAD = 4.0, 8.0
"""Seconds at the end: to receive what the server has written by then, and to store it."""


class Watch:
    """``run`` it; ``ready`` and ``document`` tell how it goes. ``spool_dir`` is its own."""

    def __init__(self, database: DatabaseUrl, target: Target, spool_dir: Path, log: Any) -> None:
        spool = Spool(spool_dir)
        limit = target.spec.continuous.spool.size.bytes
        self.receiver = Receiver(database, target.names, spool, limit, log)
        self.uploader = Uploader(spool, target, log, self.receiver.stored, self._received)
        self.receiver.uploader = self.uploader
        self.bases = Bases(database, target, self.receiver, log)
        self._where = target.store.where
        self._log = log

    def _received(self) -> str:
        server = self.receiver.server
        return server.system if server is not None and self.receiver.state.phase == "receiving" else ""

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set; what was written by then is stored, if that can be done in a few seconds.

        Raises OSError where the spool cannot be used.
        """
        receiving = asyncio.create_task(self.receiver.run(), name="receive the log")
        uploading = asyncio.create_task(self.uploader.run(), name="upload the log")
        basing = asyncio.create_task(self.bases.run(), name="base backups")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        tasks = {receiving, uploading, basing, stopping}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await _end(basing)
            await self.receiver.catch_up(CATCH_UP)
            await _end(receiving)
            await _end(uploading)
            if not await self.uploader.finish(LAST_UPLOAD):
                waiting = self.uploader.state.waiting_files
                self._log.warning("backup.log_left", waiting=waiting, effect="it is uploaded at the next start")
        finally:
            await _end(*tasks)

    def ready(self) -> tuple[bool, str]:
        """Whether the log is received; else why not."""
        state = self.receiver.state
        return state.phase == "receiving", f"{state.phase}: {state.why}" if state.why else state.phase

    def document(self) -> dict[str, Any]:
        """Section ``backup`` of ``/health``. Times are ns since the epoch, None = never."""
        log, uploads, base = self.receiver.state, self.uploader.state, self.bases.state
        problem = "" if log.phase in ("starting", "receiving") else log.why
        return {
            "allowed": log.allowed,
            "problem": problem or uploads.error or base.error,
            "uploadedToNs": uploads.complete_ns or None,
            "destination": self._where,
            "log": {
                "phase": log.phase,
                "why": log.why,
                "slot": self.receiver.slot,
                "behindBytes": log.behind_bytes,
                "keptByServerBytes": log.kept_bytes,
                "begunAnew": log.begun_anew,
            },
            "uploads": {
                "files": uploads.files,
                "lastFile": uploads.last_file,
                "lastNs": uploads.last_ns or None,
                "waitingFiles": uploads.waiting_files,
                "spoolBytes": uploads.spool_bytes,
                "spoolLimitBytes": self.receiver.limit_bytes,
                "error": uploads.error,
            },
            "base": {
                "last": base.last_id,
                "lastNs": base.last_ns or None,
                "nextNs": base.next_ns or None,
                "running": base.running,
                "bytesDone": base.bytes_done,
                "why": base.why,
                "error": base.error,
            },
        }


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

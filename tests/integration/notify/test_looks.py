"""The watcher: real health pages and tables in, rows of the outbox out; and the same in ``feedmill up``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feedmill.general.notify import states
from feedmill.general.notify.kinds import KINDS
from feedmill.general.notify.outbox import Outbox, OutboxAway
from feedmill.general.notify.processes import Place, Processes
from feedmill.general.notify.settings import NotifySettings, notify_settings
from feedmill.general.notify.watcher import Watcher
from feedmill.resources.load import load_files
from feedmill.shared import probe
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.health import Health, HealthServer
from feedmill.shared.log import get_logger

pytestmark = pytest.mark.timeout(900)  # None is judged by its speed.


class Silent:
    """Stands for the sender where nothing is to be sent."""

    wake = asyncio.Event()

    async def direct(self, notice: Any) -> int:
        return 0


class Pages:
    """Health pages of processes of the pipeline, with their port files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._servers: dict[str, HealthServer] = {}

    async def show(self, name: str, role: str, **sections: dict[str, Any]) -> None:
        await self.hide(name)
        health = Health(role)
        own: dict[str, Any] = {"pipeline": "default/main"}
        if role in ("receiver", "distributor"):
            own |= {"feed": "default/spot", "shard": 0}
        for section, content in {"process": own, **sections}.items():
            health.detail(section, lambda content=content: content)
        server = self._servers[name] = HealthServer(health, "127.0.0.1", 0)
        await server.start()
        (self.folder / f"{name}.port").write_text(f"{server.port}\n")

    async def hide(self, name: str) -> None:
        server = self._servers.pop(name, None)
        if server is not None:
            await server.stop()

    async def close(self) -> None:
        for name in list(self._servers):
            await self.hide(name)


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Pages]:
    made = Pages(tmp_path / "run")
    for name, role in (("spot-receiver", "receiver"), ("spot-distributor", "distributor"), ("processor", "processor")):
        await made.show(name, role)
    yield made
    await made.close()


@pytest.fixture
async def watcher(desk: Any, telegram: Any, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watcher]:
    """With states that are told at once, and over at once."""
    # A page that is late for want of a processor is none of a process that is down.
    monkeypatch.setattr(probe, "TIMEOUT", 60.0)
    for name, kind in list(KINDS.items()):
        monkeypatch.setitem(KINDS, name, replace(kind, hold=None if kind.hold is None else 0.0))
    monkeypatch.setattr(states, "CLEAR", 0)
    desk.write(telegram)
    resources = load_files([desk.manifest], local=True)
    settings: NotifySettings = notify_settings(resources, resources.pipelines["default", "main"])
    outbox = Outbox(desk.database_url, settings.pipeline)
    processes = Processes(Place(folder=pages.folder))
    await processes.open()
    sender: Any = Silent()
    made = Watcher(settings, outbox, processes, sender, lambda tables: None, get_logger())
    yield made
    await processes.close()
    await outbox.close()


def connection(**more: Any) -> dict[str, Any]:
    return {"stream": {"state": "open", "openSeconds": 100.0, "lastDataSeconds": 0.1, **more}}


async def kinds(desk: Any) -> list[tuple[str, bool]]:
    return [(row["kind"], bool(row["body"].get("over"))) for row in await desk.rows()]


async def test_health_pages_become_notices_and_their_end(desk: Any, pages: Pages, watcher: Watcher) -> None:
    await pages.show("spot-receiver", "receiver", connections=connection())
    await watcher._look()
    assert await kinds(desk) == []
    assert watcher.answering == 3
    away = {"redis": {"state": "open", "lastError": "refused"}, "postgres": {"state": "closed"}}
    await pages.show("processor", "processor", breaker=away)
    await pages.show("spot-receiver", "receiver", connections=connection(lastDataSeconds=99.0))
    await watcher._look()
    await watcher._look()
    assert await kinds(desk) == [("FeedStale", False), ("ServerAway", False)]
    # A receiver that does not answer tells nothing of its data.
    await pages.hide("spot-receiver")
    await pages.show("processor", "processor")
    await watcher._look()
    assert (await kinds(desk))[2:] == [("ProcessDown", False), ("ServerAway", True)]
    await pages.show("spot-receiver", "receiver", connections=connection())
    await watcher._look()
    assert sorted((await kinds(desk))[4:]) == [("FeedStale", True), ("ProcessDown", True)]


async def test_a_gap_that_stays_open_and_one_that_is_repaired(desk: Any, watcher: Watcher) -> None:
    async with desk.session() as session:
        await session.execute(
            "INSERT INTO instruments (exchange, market, symbol, native) VALUES ('b', 'S', 'BTC-USDT', 'B')"
        )
        await session.execute(
            "INSERT INTO gaps (id, shard, instrument_id, channel, cause, state, from_seq, to_seq, missing, revision, "
            "detected_ns) VALUES ('g', 'default.spot.0', 1, 'Trades', 'sequence', 'open', 5, 9, '{[5,10)}', 1, $1)",
            now_ns() - 60 * SECOND,
        )
        await watcher._look()
        [told] = await desk.rows()
        assert told["body"]["channels"][0] | {"cause": ""} == {
            "channel": "Trades", "cause": "", "gaps": 1, "missing": 5, "instruments": 1, "symbols": ["BTC-USDT"]
        }  # fmt: skip
        await session.execute("UPDATE gaps SET state = 'closed', repaired_by = 'backfill:1'")
        await watcher._look()
    assert await kinds(desk) == [("GapOpen", False), ("GapOpen", True)]


async def test_another_life_goes_on_with_what_was_told(desk: Any, pages: Pages, watcher: Watcher) -> None:
    await pages.show("spot-receiver", "receiver", connections=connection(lastDataSeconds=99.0))
    await watcher._look()
    await watcher._outbox.close()
    sender: Any = Silent()
    settings, processes = watcher.settings, watcher._processes
    outbox = Outbox(desk.database_url, settings.pipeline)
    second = Watcher(settings, outbox, processes, sender, lambda tables: None, get_logger())
    await second._look()
    assert await kinds(desk) == [("FeedStale", False)]
    await pages.show("spot-receiver", "receiver", connections=connection())
    await second._look()
    assert await kinds(desk) == [("FeedStale", False), ("FeedStale", True)]
    await outbox.close()


async def test_what_was_found_while_postgres_was_away_is_put_in_afterwards(
    desk: Any, pages: Pages, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watcher._look()
    ask = watcher._outbox._ask

    async def refuse(work: Any) -> Any:
        await watcher._outbox._lose("stopped")
        raise OutboxAway("stopped")

    monkeypatch.setattr(watcher._outbox, "_ask", refuse)
    await pages.show("spot-receiver", "receiver", connections=connection(lastDataSeconds=99.0))
    await watcher._look()
    monkeypatch.setattr(watcher._outbox, "_ask", ask)
    await pages.show("spot-receiver", "receiver", connections=connection())
    await watcher._look()
    assert await kinds(desk) == [("FeedStale", False), ("FeedStale", True)]


async def test_what_was_put_in_although_the_answer_was_lost_is_there_once(
    desk: Any, pages: Pages, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watcher._look()
    tell, lost = watcher._outbox.tell, 0

    async def deaf(*arguments: Any) -> None:
        nonlocal lost
        await tell(*arguments)
        lost += 1
        await watcher._outbox._lose("no answer")
        raise OutboxAway("no answer")

    monkeypatch.setattr(watcher._outbox, "tell", deaf)
    await pages.show("spot-receiver", "receiver", connections=connection(lastDataSeconds=99.0))
    for _ in range(2):
        with pytest.raises(OutboxAway):
            await watcher._look()
    monkeypatch.setattr(watcher._outbox, "tell", tell)
    await watcher._look()
    assert lost == 2
    assert not watcher._pending
    assert await kinds(desk) == [("FeedStale", False)]


async def test_quiet_hours_hold_back_what_is_not_critical(desk: Any, telegram: Any, notifier: Any) -> None:
    """The whole day but a minute is quiet."""
    minute = (now_ns() // (60 * SECOND) + 120) % 1440
    begin, end = f"{minute // 60:02d}:{minute % 60:02d}", f"{(minute - 1) % 1440 // 60:02d}:{(minute - 1) % 60:02d}"
    desk.write(telegram, quietHours={"from": begin, "to": end})
    await notifier.start()
    await desk.until("SELECT count(*) FROM notify_state WHERE name = 'default/main'", 1)
    await desk.letters(2)
    await desk.until("SELECT count(*) FROM notifications WHERE not_before_ns > 0", 2)
    async with desk.session() as session:
        await session.execute(
            "INSERT INTO backups (id, kind, state, destination, object, started_ns, ended_ns, schema_version, error) "
            "VALUES ('b', 'logical', 'failed', 'folder', 'o', 1, 2, '3', 'no room')"
        )
    await telegram.until(lambda messages: len(messages) == 1)
    assert "Backup failed" in telegram.messages[0].text
    # It is marked once its answer was read, a moment after it is in the chat.
    await desk.until("SELECT count(*) FROM notifications WHERE outcome = 'sent'", 1)
    assert [row["outcome"] for row in await desk.rows()] == ["waiting", "waiting", "sent"]
    # The hours are taken out of the manifest: what waits is sent.
    desk.write(telegram)
    await telegram.until(lambda messages: len(messages) == 2)
    assert "reason_0000" in telegram.messages[1].text


@pytest.mark.slow
async def test_feedmill_up_tells_of_an_exchange_that_cannot_be_reached(
    desk: Any, telegram: Any, tmp_path: Path
) -> None:
    """The whole way, with the real times: a minute without data, then the message."""
    desk.write(telegram, minimumSeverity="Critical", accountEvents=[])
    nobody = "{stream: 'ws://127.0.0.1:9', rest: 'http://127.0.0.1:9'}"
    text = desk.manifest.read_text()
    desk.manifest.write_text(text.replace("market: Spot}", f"market: Spot, endpoints: {nobody}}}"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "feedmill.cli.main", "up", "-f", str(desk.manifest), "--plain", "--api-port", "0"),
        *("--data-dir", str(tmp_path / "data"), "--secrets-dir", str(desk.secrets)),
        env={**os.environ, "DATABASE_URL": desk.database_url},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await telegram.until(lambda messages: bool(messages), timeout=270.0)
        assert telegram.messages[0].text.startswith(
            "🔴 default/spot: no data from the exchange\nshard 0\ncannot reach 127.0.0.1"
        )
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 120)
        # What ends with it is no fault.
        assert [each.text for each in telegram.messages[1:]] == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 120)

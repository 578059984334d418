"""Runs the demonstration from the first process to the verdict."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedmill.local.demo import manifest, result
from feedmill.local.demo.simulation import Simulation, emitted
from feedmill.local.embedded.files import DirLock, private_folder
from feedmill.local.errors import ManagerError
from feedmill.local.manager import ServiceManager
from feedmill.local.positions import Positions, PositionsAway
from feedmill.local.servers import LocalServers
from feedmill.local.session import LocalSession, Outcome
from feedmill.local.view import Display
from feedmill.plan import plan
from feedmill.resources.load import load_files
from feedmill.shared import postgres

FLOW_TIMEOUT = 20.0
"""Seconds until every feed must flow."""
SETTLE_TIMEOUT = 20.0
GRACE = 2.5
"""Seconds after the last message: holes are declared gaps within the feeds' gapGrace (2 s)."""
MARKER = "this-is-a-feedmill-demo"


@dataclass(slots=True)
class Settings:
    folder: Path
    seconds: float
    rate: float
    """Messages a second of all exchanges together."""
    recordings: Path | None = None
    speed: float = 1.0


def fresh_folder(folder: Path) -> None:
    """Empty the demonstration's folder of the last time; raises ManagerError when it is anything else, or in use."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise ManagerError(
                f"{folder} holds something else than a demonstration, which would be removed: "
                "name another folder with --data-dir"
            )
        lock = DirLock(folder, "demonstration")
        lock.acquire(timeout=10.0)
        lock.release()
        shutil.rmtree(folder)
    private_folder(folder)
    (folder / MARKER).touch()


class Demo:
    """One demonstration. ``outcome`` and ``result`` are there after ``run``."""

    def __init__(self, settings: Settings, display: Display) -> None:
        self.settings = settings
        self.display = display
        self.result: result.Result | None = None
        self.outcome = Outcome()
        self._stats: dict[str, dict[str, Any]] = {}
        self._simulation: Simulation | None = None

    async def run(self) -> None:
        """Raises ManagerError, EmbeddedError, ...; leaves no process behind."""
        settings = self.settings
        feeds = _feeds(settings.recordings)
        for name in ("run", "logs"):
            private_folder(settings.folder / name)
        arguments = self._arguments([feed.venue for feed in feeds])
        simulation = Simulation(settings.folder / "run", settings.folder / "logs" / "simulator.log", arguments)
        self._simulation = simulation
        self.display.say(f"starting simulated exchanges: {', '.join(feed.venue for feed in feeds)}")
        try:
            await simulation.start()
            keep = "30d" if settings.recordings is None else "3650d"
            path = settings.folder / "demo.yaml"
            path.write_text(manifest.render(feeds, simulation.endpoints, keep=keep))
            await self._run_pipeline(path)
        finally:
            await simulation.stop()

    def _arguments(self, venues: Sequence[str]) -> list[str]:
        settings = self.settings
        arguments = [part for venue in venues for part in ("--exchange", venue)]
        arguments += ["--ledger", str(settings.folder / "ledger"), "--rate", f"{settings.rate / len(venues):g}"]
        if settings.recordings is not None:
            arguments += ["--recordings", str(settings.recordings.absolute()), "--speed", f"{settings.speed:g}"]
        return arguments

    async def _run_pipeline(self, path: Path) -> None:
        resources = load_files([path], local=True)
        # An empty environment: the demonstration never touches servers of the user's own.
        servers = LocalServers(self.settings.folder, {})
        manager = ServiceManager(
            plan(resources), config=[path], data_dir=self.settings.folder, servers=servers, say=self.display.say
        )
        feeds = [feed for _, feed in sorted(resources.feeds.items())]
        session = LocalSession(manager, feeds, self.display, api_port=None)
        self.outcome = session.outcome
        await session.run(self._during, at_end=lambda: self._compare(manager))
        if self.result is not None:
            self.result.drained = session.outcome.drain.clean
            self.result.notes += session.outcome.drain.notes
            self.result.latencies = dict(result.latencies_of(session.outcome.figures))

    async def _during(self, session: LocalSession) -> None:
        settings = self.settings
        assert self._simulation is not None
        await self._until_flowing(session)
        if settings.recordings is None:
            self.display.say(f"{settings.rate:,.0f} messages a second flow, for {settings.seconds:g} s")
            await asyncio.sleep(settings.seconds)
        else:
            self.display.say(f"replaying recorded frames from {settings.recordings}")
            await self._until_replayed()
        self._stats = await self._simulation.end_of_flow()
        total = sum(emitted(stats) for stats in self._stats.values())
        self.display.say(f"the exchanges have emitted {total:,} messages and are silent now")
        await self._until_settled(session.manager)

    async def _until_flowing(self, session: LocalSession) -> None:
        try:
            async with asyncio.timeout(FLOW_TIMEOUT):
                while True:
                    figures = session.outcome.figures
                    if figures and all(item.flowing for item in figures):
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            waiting = "; ".join(f"{item.feed}: {item.state}" for item in session.outcome.figures if not item.flowing)
            raise ManagerError(
                f"not all feeds flow after {FLOW_TIMEOUT:g} s ({waiting}): see the logs in {self.settings.folder}/logs"
            ) from None

    async def _until_replayed(self) -> None:
        """Until nothing more has come for a while (a recording of half a minute, at its own pace)."""
        assert self._simulation is not None
        loop = asyncio.get_running_loop()
        last, moved = -1, loop.time()
        while loop.time() - moved < 3.0:
            stats = await self._simulation.stats()
            now = sum(emitted(found) for found in stats.values() if found is not None)
            if now != last:
                last, moved = now, loop.time()
            await asyncio.sleep(0.2)

    async def _until_settled(self, manager: ServiceManager) -> None:
        """Until everything has gone through and holes, if any, have been declared."""
        await asyncio.sleep(GRACE)
        assert manager.redis is not None
        positions = Positions(manager.redis, manager.shards)
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT):
                while True:
                    try:
                        if all(item.raw_drained and item.events_drained for item in await positions.read()):
                            return
                    except PositionsAway:
                        pass
                    await asyncio.sleep(0.02)
        except TimeoutError:
            self.display.say(f"not all has gone through after {SETTLE_TIMEOUT:g} s")

    async def _compare(self, manager: ServiceManager) -> None:
        if not self._stats:
            return
        from feedmill.simulator.verify import VerifyError, verify

        self.display.say("comparing the database with what the exchanges emitted")
        assert self._simulation is not None
        await self._simulation.stop()
        try:
            report = await verify(self.settings.folder / "ledger", manager.servers.database_url)
        except (VerifyError, FileNotFoundError) as error:
            raise ManagerError(f"the comparison could not be made: {error}") from error
        self.result = result.Result(report, recorded=self.settings.recordings is not None)
        self.result.messages = {venue: emitted(stats) for venue, stats in self._stats.items()}
        connection = await postgres.connect(manager.servers.database_url, name="feedmill-demo")
        try:
            self.result.letters = await result.dead_letters(connection)
            self.result.open_gaps = await connection.fetchval("SELECT count(*) FROM gaps WHERE state = 'open'")
        finally:
            await postgres.close(connection)


def _feeds(recordings: Path | None) -> list[manifest.DemoFeed]:
    if recordings is None:
        return [manifest.DemoFeed(venue, symbols) for venue, symbols in manifest.SYMBOLS.items()]
    from feedmill.simulator.recorded import recorded_feeds

    found = [
        manifest.DemoFeed(
            f"{feed['exchange']}/{feed['market']}", feed["symbols"], feed["channels"], feed["interval"] or "1m"
        )
        for feed in recorded_feeds(recordings)
    ]
    if not found:
        raise ManagerError(f"--recordings {recordings}: holds no recording of Binance or Deribit (*.jsonl.gz)")
    return found

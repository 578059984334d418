"""Runs the demonstration from the first process to the verdict."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedmill.local.backups import backup_workloads
from feedmill.local.demo import accounts, manifest, result, waits
from feedmill.local.demo.account_figures import Watch, look
from feedmill.local.demo.simulation import Simulation, emitted
from feedmill.local.embedded.files import DirLock, private_folder
from feedmill.local.errors import ManagerError
from feedmill.local.manager import ServiceManager
from feedmill.local.servers import LocalServers
from feedmill.local.session import LocalSession, Outcome
from feedmill.local.view import Display
from feedmill.plan import plan
from feedmill.resources.load import load_files
from feedmill.shared import postgres

GRACE = 2.5
"""Seconds after the last message: holes are declared gaps within the feeds' gapGrace (2 s)."""
MARKER = "this-is-a-feedmill-demo"
DERIBIT = "deribit/Derivatives"


@dataclass(slots=True)
class Settings:
    folder: Path
    seconds: float
    rate: float
    """Messages a second of all exchanges together."""
    recordings: Path | None = None
    speed: float = 1.0
    backup: bool = False
    """Back the database up continuously, into a folder beside it."""

    @property
    def secrets_dir(self) -> Path:
        return self.folder / "secrets"


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
    """One demonstration. ``outcome`` and ``result`` are there after ``run``.

    Recorded frames are replayed without accounts: recordings hold none.
    """

    def __init__(self, settings: Settings, watch: Watch, display: Display) -> None:
        """``watch`` is told where the database is; ``display`` may show what it sees."""
        self.settings = settings
        self.watch = watch
        self.display = display
        self.result: result.Result | None = None
        self.outcome = Outcome()
        self.accounts: list[accounts.DemoAccount] = []
        self._cut_ns: dict[str, int] = {}
        """Account -> when its connection was ended last; 0 = not yet."""
        self._latencies: accounts.Latencies = {}
        self._stats: dict[str, dict[str, Any]] = {}
        self._simulation: Simulation | None = None
        self._logs = settings.folder / "logs"
        self._kek = settings.folder / "kek"
        self._keys = settings.folder / "run" / "account-keys.json"

    async def run(self) -> None:
        """Raises ManagerError, EmbeddedError, ...; leaves no process behind."""
        settings = self.settings
        feeds = _feeds(settings.recordings)
        for name in ("run", "logs"):
            private_folder(settings.folder / name)
        arguments = self._arguments([feed.venue for feed in feeds])
        simulation = Simulation(settings.folder / "run", self._logs / "simulator.log", arguments)
        self._simulation = simulation
        self.display.say(f"starting simulated exchanges: {', '.join(feed.venue for feed in feeds)}")
        try:
            await simulation.start()
            keep = "30d" if settings.recordings is None else "3650d"
            path = settings.folder / "demo.yaml"
            if settings.recordings is None:
                self.accounts = accounts.take_keys(self._keys)
                accounts.make_kek(self._kek)
                for account in self.accounts:
                    await simulation.act(account.venue, accounts.BEFORE)
            backups = settings.folder.absolute() / "backups" if settings.backup else None
            if backups is not None:
                key = settings.secrets_dir / manifest.BACKUP_SECRET / manifest.BACKUP_KEY
                private_folder(key.parent)
                accounts.make_kek(key)
            path.write_text(
                manifest.render(feeds, simulation.endpoints, keep=keep, accounts=bool(self.accounts), backups=backups)
            )
            await self._run_pipeline(path)
        finally:
            await simulation.stop()

    def _arguments(self, venues: Sequence[str]) -> list[str]:
        settings = self.settings
        arguments = [part for venue in venues for part in ("--exchange", venue)]
        arguments += ["--ledger", str(settings.folder / "ledger"), "--rate", f"{settings.rate / len(venues):g}"]
        if settings.recordings is not None:
            return [*arguments, "--recordings", str(settings.recordings.absolute()), "--speed", f"{settings.speed:g}"]
        counts = ",".join(f"{venue}=1" for venue in accounts.VENUES)
        return [*arguments, "--accounts", counts, "--account-rate", "0", "--keys", str(self._keys)]

    async def _run_pipeline(self, path: Path) -> None:
        resources = load_files([path], local=True)
        # An empty environment: the demonstration never touches servers of the user's own.
        servers = LocalServers(self.settings.folder, {})
        secrets_dir = self.settings.secrets_dir.absolute() if self.settings.backup else None
        manager = ServiceManager(
            [*plan(resources), *backup_workloads(resources, secrets_dir)[0]],
            config=[path],
            data_dir=self.settings.folder,
            servers=servers,
            say=self.display.say,
            extra_args=() if secrets_dir is None else ("--secrets-dir", str(secrets_dir)),
            kek_file=self._kek if self.accounts else None,
        )
        feeds = [feed for _, feed in sorted(resources.feeds.items())]
        session = LocalSession(manager, feeds, self.display, api_port=None)
        self.outcome = session.outcome
        await session.run(self._during, at_end=lambda: self._compare(manager))
        if self.result is not None:
            self.result.drained = session.outcome.drain.clean
            self.result.notes += session.outcome.drain.notes
            self.result.account_latencies = self._latencies
            self.result.latencies = dict(result.latencies_of(session.outcome.figures))

    async def _during(self, session: LocalSession) -> None:
        watching = asyncio.create_task(self.watch.run(lambda: session.manager.servers.database_url), name="accounts")
        try:
            await self._add_accounts()
            await waits.until_flowing(session, self._logs)
            await waits.until_listening(self.watch, self._cut_ns, self._logs)
            await self._flow()
            await asyncio.gather(asyncio.sleep(GRACE), self._ask_for_transfers())
            await waits.until_settled(session.manager, self.accounts, self.display.say)
            self._latencies = accounts.latencies(session.manager.status())
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _add_accounts(self) -> None:
        """As a user does it, with receivers already at work."""
        if not self.accounts:
            return
        for account in self.accounts:
            shown = accounts.add_command(account, self._kek, self.settings.folder)
            self.display.say(f"feedmill {' '.join(shown[:5])} ...")
            self._cut_ns[account.name] = 0
        await accounts.add_all(self.accounts, self._kek, self.settings.folder)
        self.display.say("the accounts are stored, sealed with the demonstration's own key")

    async def _flow(self) -> None:
        settings = self.settings
        assert self._simulation is not None
        if settings.recordings is None:
            self.display.say(f"{settings.rate:,.0f} messages a second flow, for {settings.seconds:g} s")
            # Where the simulator is gone, what follows says so.
            trading = asyncio.create_task(accounts.trade(self._simulation, self.accounts), name="trade")
            try:
                await asyncio.sleep(settings.seconds / 2)
                await self._cut(self.accounts)
                self.display.say("the accounts' connections are cut: what they miss is asked for later")
                await asyncio.sleep(settings.seconds / 2)
            finally:
                trading.cancel()
                await asyncio.gather(trading, return_exceptions=True)
        else:
            self.display.say(f"replaying recorded frames from {settings.recordings}")
            await waits.until_replayed(self._simulation)
        self._stats = await self._simulation.end_of_flow()
        total = sum(emitted(stats) for stats in self._stats.values())
        self.display.say(f"the exchanges have emitted {total:,} messages and are silent now")

    async def _ask_for_transfers(self) -> None:
        """Deribit tells deposits and withdrawals by REST alone, which is asked whenever it is listened to anew."""
        await self._cut([account for account in self.accounts if account.venue == DERIBIT])
        await waits.until_listening(self.watch, self._cut_ns, self._logs)

    async def _cut(self, those: Sequence[accounts.DemoAccount]) -> None:
        """End their connections, as an exchange may at any time."""
        assert self._simulation is not None
        for account in those:
            self._cut_ns[account.name] = time.time_ns()
            await self._simulation.cut_accounts(account.venue)

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
            self.result.accounts = (await look(connection)).accounts
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

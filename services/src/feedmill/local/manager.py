"""The service manager: runs a plan's processes and servers in order, keeps them running, ends them in order.

Start: Redis and PostgreSQL, schema, maintenance, processors, account receivers, distributors, receivers. Stop is the
other way round, and each stage first waits until what the one before it produced has been taken over, so that nothing
stays in between. Account receivers end with the receivers: they distribute and store what they heard themselves.
The notifier ends before all others. The backup ends last, when all is stored that it is to keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from feedmill.local.account_streams import left_of_accounts
from feedmill.local.drain import Drain, DrainReport
from feedmill.local.embedded.files import DirLock, private_folder
from feedmill.local.errors import ManagerError
from feedmill.local.logs import Echo
from feedmill.local.migration import migrate
from feedmill.local.process import ProcessSpec, ServiceProcess, State
from feedmill.local.servers import LocalServers
from feedmill.local.status import ManagerStatus, ServerStatus, ServiceStatus, total
from feedmill.local.usage import CpuMeter, rss_bytes
from feedmill.plan import Workload, show_key
from feedmill.shared.breaker import Breaker
from feedmill.shared.keys import ShardRef
from feedmill.shared.probe import Prober
from feedmill.shared.redis.pool import RedisPool
from feedmill.shared.redis.url import RedisUrl

START_STAGES = (("maintenance", "processor", "distributor", "accounts", "notify"), ("receiver", "backup"))
READY_WAIT = 20.0
"""Seconds a stage may take to become ready before the next one is started all the same."""
LOOK_STARTING, LOOK_RUNNING = 0.2, 1.0
"""Seconds between looks at the services' health."""

REDIS_TIMEOUT = 1.5
"""Seconds for Redis to answer the manager; less than health and drain wait, so that silence counts for the breaker."""
REDIS_WAIT = 5.0
"""Seconds in which Redis must be there at the start (it may be loading its data)."""

Hook = Callable[[], Awaitable[None]]
CommandOf = Callable[[Workload, Path], Sequence[str]]
"""(workload, port file) -> program and arguments."""


class ServiceManager:
    """Supervises the services of ``workloads``. ``servers`` is started and stopped with them.

    ``config``: the manifest files, for the children. ``migrate``: bring the schema up to date at start. ``kek_file``:
    for the account receivers.
    """

    def __init__(
        self,
        workloads: Sequence[Workload],
        *,
        config: Sequence[Path],
        data_dir: Path,
        servers: LocalServers,
        migrate: bool = True,
        echo: Echo | None = None,
        log_level: str = "info",
        grace: float = 25.0,
        restart_cap: float = 30.0,
        drain_timeout: float = 60.0,
        stall_timeout: float = 15.0,
        command_of: CommandOf | None = None,
        environ: Mapping[str, str] | None = None,
        say: Callable[[str], None] | None = None,
        extra_args: Sequence[str] = (),
        kek_file: Path | None = None,
    ) -> None:
        self.workloads = list(workloads)
        self.data_dir = data_dir.expanduser().absolute()
        self.servers = servers
        self.phase = "waiting"
        self.step = ""
        self.prober = Prober()
        self.redis: RedisPool | None = None
        """For the manager's own questions; there from the start of the servers to their end."""
        self._config = [path.expanduser().absolute() for path in config]
        self._migrate = migrate
        self._echo = echo
        self._log_level = log_level
        self._grace = grace
        self._restart_cap = restart_cap
        self._drain_timeout = drain_timeout
        self._stall_timeout = stall_timeout
        self._command_of = command_of or self._command
        self._environ = dict(os.environ if environ is None else environ)
        self._say = say
        self._extra_args = list(extra_args)
        self._kek_file = kek_file
        self._lock = DirLock(self.data_dir, "data folder")
        self._services: dict[str, tuple[Workload, ServiceProcess]] = {}
        self._health: dict[str, dict[str, Any] | None] = {}
        self._usage: dict[str, tuple[int | None, float | None]] = {}
        self._server_status: list[ServerStatus] = []
        self._cpu = CpuMeter()
        self._began = time.monotonic()
        self._looker: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._looked_at = 0.0
        self._forced = asyncio.Event()

    # reading
    @property
    def run_dir(self) -> Path:
        return self.data_dir / "run"

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def shards(self) -> list[ShardRef]:
        found = {ShardRef(*load.feed, load.shard) for load in self.workloads if load.feed and load.shard is not None}
        return sorted(found)

    def service(self, name: str) -> ServiceProcess:
        """By name; raises KeyError naming those there are."""
        try:
            return self._services[name][1]
        except KeyError:
            raise KeyError(f"no service {name!r}: there are {', '.join(self._services) or 'none'}") from None

    def ports(self) -> dict[str, int]:
        """Service -> port of its health server, of those that have one now."""
        return {name: item.port for name, (_, item) in self._services.items() if item.port is not None}

    def scraped(self) -> list[tuple[Workload, int | None]]:
        """Each service and the port of its health server; None = it has none now."""
        return [(load, item.port) for load, item in self._services.values()]

    def status(self) -> ManagerStatus:
        """Everything known now; no I/O (numbers come from the last look)."""
        services = [self._service_status(load, item) for load, item in self._services.values()]
        servers = self._server_status or self.servers.status()
        wanted = [item for item in services if item.state != "stopped"]
        ready = self.phase == "running" and all(item.ready for item in wanted) and bool(wanted)
        return ManagerStatus(
            phase=self.phase,
            step=self.step,
            ready=ready,
            uptime_seconds=round(time.monotonic() - self._began, 1),
            data_dir=str(self.data_dir),
            services=services,
            servers=servers,
            totals=total(services, servers),
            looked_at=self._looked_at,
        )

    def _service_status(self, load: Workload, item: ServiceProcess) -> ServiceStatus:
        health = self._health.get(item.name) if item.state in (State.RUNNING, State.STOPPING) else None
        memory, cpu = self._usage.get(item.name, (None, None)) if item.pid is not None else (None, None)
        wait = None if item.next_start is None else max(0.0, round(item.next_start - time.monotonic(), 1))
        return ServiceStatus(
            name=item.name,
            role=load.role,
            feed=show_key(load.feed) if load.feed else "",
            shard=load.shard,
            replica=load.replica,
            state=item.state.value,
            pid=item.pid,
            port=item.port,
            restarts=item.restarts,
            crash_loop=item.crash_loop,
            next_start_seconds=wait,
            ready=None if health is None else bool(health.get("ready")),
            waiting_for=dict((health or {}).get("waitingFor") or {}),
            rss_bytes=memory,
            cpu_percent=cpu,
            uptime_seconds=None if item.uptime is None else round(item.uptime, 1),
            last_error=item.log.last_error,
            last_exit=item.last_exit,
            health=health,
        )

    # start
    async def start(self, *, before_services: Hook | None = None) -> None:
        """Start everything in order; raises ManagerError, EmbeddedError or DataDirInUse, with all stopped again.

        ``before_services`` is awaited when the servers and the schema are there.
        """
        try:
            await self._start(before_services)
        except BaseException:
            await self.close()
            raise

    async def _start(self, before_services: Hook | None) -> None:
        self.phase = "starting"
        for folder in (self.data_dir, self.run_dir, self.log_dir):
            private_folder(folder)
        self._lock.acquire(timeout=5.0)
        await self.prober.open()
        self._tell(self.servers.intent())
        await self.servers.start()
        self.redis = redis_pool(self.servers.redis_url)
        await self._reach_redis(self.redis)
        urls = ("REDIS_URL", "REDIS_URL_FILE", "DATABASE_URL", "DATABASE_URL_FILE")
        environment = {name: value for name, value in self._environ.items() if name not in urls}
        environment |= self.servers.environment()
        if self._migrate:
            self._tell("bringing the schema up to date")
            await migrate(environment, self.log_dir / "migrate.log")
        if before_services is not None:
            await before_services()
        self._make_services(environment)
        self._looker = asyncio.create_task(self._look_forever(), name="look")
        for roles in START_STAGES:
            stage = self._of(*roles)
            if not stage:
                continue
            self._tell(f"starting {_names(stage)}")
            for item in stage:
                item.start()
            if "receiver" not in roles:
                await self._until_ready(stage)
            self._refuse_failed(stage)
        self.phase = "running"
        self.step = ""

    async def _reach_redis(self, pool: RedisPool) -> None:
        """Whoever starts this should hear at once of a wrong address or password; later the services ride it out."""
        until = time.monotonic() + REDIS_WAIT
        while True:
            try:
                await pool.client.ping()
            except (RedisError, OSError) as error:
                if time.monotonic() > until:
                    raise ManagerError(f"Redis ({pool.url}) cannot be reached: {error}") from error
                await asyncio.sleep(0.2)
            else:
                return

    def _make_services(self, environment: Mapping[str, str]) -> None:
        for load in self.workloads:
            name = service_name(load)
            port_file = self.run_dir / f"{name}.port"
            spec = ProcessSpec(
                name=name,
                command=self._command_of(load, port_file),
                environment=environment,
                folder=Path.cwd(),
                log_file=self.log_dir / f"{name}.log",
                port_file=port_file,
                role=load.role,
                grace=self._grace,
                backoff_base=min(0.5, self._restart_cap),
                backoff_cap=self._restart_cap,
            )
            self._services[name] = (load, ServiceProcess(spec, echo=self._echo))

    def _command(self, load: Workload, port_file: Path) -> list[str]:
        files = [part for path in self._config for part in ("--config", str(path))]
        # What this process started and what its services work by must not drift apart: changes wait for the next start.
        own = ["--port-file", str(port_file), "--log-level", self._log_level, "--no-reload"]
        if load.role == "receiver":
            own += ["--spill-dir", str(self.data_dir / "spill" / service_name(load))]
        if load.role == "accounts" and self._kek_file is not None:
            own += ["--kek-file", str(self._kek_file.expanduser().absolute())]
        if load.role == "backup":
            own += ["--spool-dir", str(self.data_dir / "backup-spool" / service_name(load))]
        if load.role == "notify":
            own += ["--processes", str(self.run_dir)]
        return [sys.executable, "-m", "feedmill.cli.main", *load.args, *files, *own, *self._extra_args]

    def _of(self, *roles: str) -> list[ServiceProcess]:
        return [item for load, item in self._services.values() if load.role in roles]

    async def _until_ready(self, stage: Sequence[ServiceProcess]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WAIT):
                up = await asyncio.gather(*(item.up() for item in stage))
                waiting = [item for item, is_up in zip(stage, up, strict=True) if is_up]
                while any(not (self._health.get(item.name) or {}).get("ready") for item in waiting):
                    self._looked.clear()
                    await self._looked.wait()
                    waiting = [item for item in waiting if item.state is State.RUNNING]

    def _refuse_failed(self, stage: Sequence[ServiceProcess]) -> None:
        for item in stage:
            if item.state is State.FAILED:
                said = item.log.last_line or item.log.last_error or "(it wrote nothing)"
                raise ManagerError(f"{item.name} refuses its configuration: {said} (see {item.spec.log_file})")

    def _tell(self, step: str) -> None:
        self.step = step
        if self._say is not None:
            self._say(step)

    # looking
    async def _look_forever(self) -> None:
        while True:
            await self._look()
            self._looked.set()
            await asyncio.sleep(LOOK_STARTING if self.phase == "starting" else LOOK_RUNNING)

    async def _look(self) -> None:
        ports = self.ports()
        found = await self.prober.health(ports.values())
        self._health = {name: found[port] for name, port in ports.items()}
        self._looked_at = time.monotonic()
        for name, (_, item) in self._services.items():
            cpu = self._cpu.read(item.pid)
            before = self._usage.get(name, (None, None))[1]
            self._usage[name] = (rss_bytes(item.pid), before if cpu is None else cpu)
        if self.servers.from_files:
            await self._follow_urls()
        self._server_status = await asyncio.to_thread(self.servers.status)

    async def _follow_urls(self) -> None:
        await asyncio.to_thread(self.servers.follow)
        if self.redis is not None and (url := RedisUrl.parse(self.servers.redis_url)) != self.redis.url:
            self.redis.url.become(url)
            await self.redis.client.connection_pool.disconnect(inuse_connections=False)

    # stop
    async def stop(self, *, before_servers: Hook | None = None) -> DrainReport:
        """Drain and stop in order; bounded. ``force`` cuts it short.

        ``before_servers`` is awaited when all services have ended and Redis and PostgreSQL still run.
        """
        report = DrainReport()
        self.phase = "draining"
        try:
            await self._drain(report)
            if before_servers is not None:
                await before_servers()
        finally:
            await self.close()
        for _, item in self._services.values():
            if item.forced and not self._forced.is_set():
                report.note(f"{item.name} did not stop within {self._grace:g} s and was killed")
        return report

    async def _drain(self, report: DrainReport) -> None:
        if self.redis is None:
            return
        drain = Drain(self.redis, self.shards, self._forced, self._drain_timeout, self._stall_timeout)
        pool = self._of("accounts")
        and_those = " and account receivers" if pool else ""
        # It would take the end of the others for a fault.
        await self._stop_all(self._of("notify"))
        self._tell(f"stopping receivers{and_those} (they hand over what they hold)")
        await self._stop_all([*self._of("receiver"), *pool])
        if pool and not self._forced.is_set():
            for line in await left_of_accounts(self.redis, self.servers.database_url):
                report.note(line)
        self._tell("waiting until all captured frames are dispatched")
        await drain.until_taken_over("raw", self._of("distributor"), report)
        self._tell("stopping distributors")
        await self._stop_all(self._of("distributor"))
        self._tell("waiting until all events are stored")
        await drain.until_taken_over("events", self._of("processor"), report)
        self._tell("stopping processors")
        await self._stop_all(self._of("processor", "maintenance"))
        if backups := self._of("backup"):
            self._tell("stopping the backup (what was written is uploaded)")
            await self._stop_all(backups)

    async def _stop_all(self, stage: Sequence[ServiceProcess]) -> None:
        await asyncio.gather(*(item.stop() for item in stage))

    def force(self) -> None:
        """End now: services are killed, nothing is waited for any more."""
        self._forced.set()
        for _, item in self._services.values():
            item.hurry()

    async def close(self) -> None:
        """Stop whatever still runs, without waiting for data; also after a failed or cancelled start."""
        try:
            await self._stop_all([item for _, item in reversed(self._services.values())])
        finally:
            if self._looker is not None:
                self._looker.cancel()
                await asyncio.gather(self._looker, return_exceptions=True)
            self.step = "stopping Redis and PostgreSQL"
            pool, self.redis = self.redis, None
            try:
                if pool is not None:
                    await pool.close()
                await self.servers.stop()
            finally:
                await self.prober.close()
                self._server_status = []
                self._lock.release()
                self.phase, self.step = "stopped", ""


def service_name(load: Workload) -> str:
    """The workload's name, with its namespace where that is not ``default`` (names are unique within one)."""
    namespace = load.pipeline[0]
    return load.name if namespace == "default" else f"{namespace}.{load.name}"


def redis_pool(url: str) -> RedisPool:
    """Local mode's pool. Its breaker rests briefly: the drain must notice soon that Redis is back."""
    breaker = Breaker("redis", fail_max=3, first_reset=0.5, reset_timeout=5.0)
    return RedisPool(RedisUrl.parse(url), breaker, name="feedmill-local", max_connections=4, timeout=REDIS_TIMEOUT)


def _names(stage: Sequence[ServiceProcess]) -> str:
    counts = Counter(item.spec.role for item in stage)
    called = {"accounts": "account receiver", "notify": "notifier"}
    one = {role: called.get(role, role) for role in counts}
    return ", ".join(f"{number} {one[role]}s" if number > 1 else one[role] for role, number in counts.items())

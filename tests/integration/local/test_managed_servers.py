"""Managed servers as a container runs them: real processes, real clients, passwords that change."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
import redis

from feedmill.local.embedded.files import choose_port
from feedmill.local.embedded.server import descendants

FIRST, SECOND, THIRD = "first-password", "seçond \"pass' word\\", "third-password"


def until(holds: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


class Container:
    """One managed server as a process of its own, with the password's file beside its data."""

    def __init__(self, folder: Path, server: str, *options: str) -> None:
        self.server, self.options = server, options
        self.data, self.secret, self.log = folder / "data", folder / "password", folder / "output"
        self.data.mkdir()
        self.port = choose_port(folder)  # Below the range of outgoing connections: it stays free over a restart.
        self.write(FIRST)
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, password: str) -> None:
        """As the kubelet does: whole or not at all."""
        fresh = self.secret.with_suffix(".new")
        fresh.write_text(password + "\n")
        fresh.replace(self.secret)

    def start(self) -> Container:
        command = [sys.executable, "-m", "feedmill.local.managed", self.server, "--data", str(self.data)]
        command += ["--port", str(self.port), "--password-file", str(self.secret), *self.options]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        return self

    def ready(self) -> Container:
        until(lambda: self.ended or self.accepts(self.secret.read_text()[:-1]), f"{self.server} answers: {self.text}")
        assert not self.ended, self.text
        return self

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def accepts(self, password: str) -> bool:
        try:
            self.ask(password)
        except (redis.RedisError, asyncpg.PostgresError, OSError):
            return False
        return True

    def ask(self, password: str, statement: str = "") -> object:
        """A new connection with this password."""
        if self.server == "redis":
            with redis.Redis(port=self.port, password=password, socket_timeout=60) as client:
                return client.execute_command(*(statement or "PING").split())
        return asyncio.run(self._sql(password, statement or "SELECT 1"))

    async def _sql(self, password: str, statement: str) -> object:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.port, user="feedmill", database="feedmill", password=password, timeout=60
        )
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Callable[..., Container]]:
    made: list[Container] = []

    def make(server: str, *options: str) -> Container:
        made.append(Container(tmp_path, server, *options))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and not one.ended:
            one.stop()


def write_row(server: Container, password: str = FIRST) -> None:
    if server.server == "redis":
        assert server.ask(password, "SET kept yes") in (True, b"OK")
        # Everysec: the test kills the server, so it waits for the disk as the services do.
        assert server.ask(password, "WAITAOF 1 0 50000")[0] == 1  # type: ignore[index]
    else:
        server.ask(password, "CREATE TABLE kept AS SELECT 'yes' AS word")


def read_row(server: Container, password: str = FIRST) -> object:
    return server.ask(password, "GET kept" if server.server == "redis" else "SELECT word FROM kept")


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_stops_in_order_and_keeps_its_data(container: Callable[..., Container], name: str) -> None:
    server = container(name).start().ready()
    assert not server.accepts("wrong-password")
    write_row(server)
    assert server.stop() == 0
    assert server.start().ready()
    assert read_row(server) in ("yes", b"yes")
    assert FIRST not in server.text


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_a_killed_server_ends_the_container_and_comes_back(container: Callable[..., Container], name: str) -> None:
    server = container(name).start().ready()
    write_row(server)
    assert server.process is not None
    child = next(
        pid
        for pid in descendants(server.process.pid)
        if Path(f"/proc/{pid}/comm").read_text().startswith(("valkey", "redis", "postgres"))
    )
    os.kill(child, signal.SIGKILL)
    assert server.process.wait(60) == 1
    server.start().ready()
    assert read_row(server) in ("yes", b"yes")


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_a_killed_container_comes_back(container: Callable[..., Container], name: str) -> None:
    server = container(name).start().ready()
    write_row(server)
    server.stop(signal.SIGKILL)
    server.start().ready()
    assert read_row(server) in ("yes", b"yes")


def test_redis_takes_both_passwords_for_a_while(container: Callable[..., Container]) -> None:
    server = container("redis", "--password-grace", "3").start().ready()
    with redis.Redis(port=server.port, password=FIRST) as connected:
        connected.ping()
        began = time.monotonic()
        server.write(SECOND)
        # At no moment is the old one refused before the new one is good.
        until(lambda: server.accepts(SECOND) or not server.accepts(FIRST), "the new password is good")
        assert server.accepts(SECOND)
        # Its time does not run before the change, and may be over where this process was held up.
        assert server.accepts(FIRST) or time.monotonic() - began > 3
        until(lambda: not server.accepts(FIRST), "the old one has run out")
        assert server.accepts(SECOND)
        assert connected.ping()
    assert SECOND not in server.text
    assert FIRST not in server.text


def test_redis_remembers_the_password_before_over_a_restart(container: Callable[..., Container]) -> None:
    server = container("redis").start().ready()
    server.write(SECOND)
    until(lambda: server.accepts(SECOND), "the new password is good")
    server.stop()
    server.start().ready()
    until(lambda: server.accepts(FIRST), "the old one is good again")
    server.stop()
    server.write(THIRD)
    server.start().ready()
    until(lambda: server.accepts(SECOND), "what was changed while it was down overlaps too")
    assert not server.accepts(FIRST)


def test_postgres_follows_its_password(container: Callable[..., Container]) -> None:
    server = container("postgres").start().ready()
    assert server.ask(FIRST, "SELECT current_setting('data_checksums')") == "on"
    assert str(server.ask(FIRST, "SELECT rolpassword FROM pg_authid WHERE rolname = 'feedmill'")).startswith("SCRAM-")
    server.write(SECOND)
    until(lambda: server.accepts(SECOND), "the new password is good")
    assert not server.accepts(FIRST)
    server.stop()
    server.write(THIRD)
    server.start()
    until(lambda: server.accepts(THIRD), "a password changed while it was down")
    assert not any(word in server.text for word in (FIRST, SECOND, THIRD))


def test_an_unusable_password_changes_nothing(container: Callable[..., Container]) -> None:
    server = container("redis").start().ready()
    server.write("")
    until(lambda: "managed.password_unusable" in server.text, "it says so")
    assert server.accepts(FIRST)
    server.write(SECOND)
    until(lambda: server.accepts(SECOND), "the next good one is taken")


def test_redis_is_set_up_to_lose_nothing(container: Callable[..., Container]) -> None:
    server = container("redis", "--maxmemory", "67108864").start().ready()
    expected = {
        "maxmemory": "67108864", "maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec",
        "save": "",
    }  # fmt: skip
    with redis.Redis(port=server.port, password=FIRST, decode_responses=True) as client:
        assert {name: client.config_get(name)[name] for name in expected} == expected


def test_another_major_version_is_refused(container: Callable[..., Container]) -> None:
    server = container("postgres").start().ready()
    server.stop()
    (server.data / "pgdata" / "PG_VERSION").write_text("17\n")
    server.start()
    assert server.process is not None
    assert server.process.wait(60) == 2
    assert "was made by PostgreSQL 17" in server.text
    assert "pg_dump" in server.text


def test_postgres_takes_a_volume_that_the_kubelet_opened_to_its_group(container: Callable[..., Container]) -> None:
    server = container("postgres").start().ready()
    server.stop()
    (server.data / "pgdata").chmod(0o2770)
    server.start().ready()


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_no_password_no_start(container: Callable[..., Container], name: str) -> None:
    server = container(name)
    server.secret.unlink()
    server.start()
    assert server.process is not None
    assert server.process.wait(60) == 2
    assert "there is no such file" in server.text

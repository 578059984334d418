"""Embedded Redis and PostgreSQL: real processes, their data, their ends."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest
import redis

from feedmill.local.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis
from feedmill.local.embedded.errors import DataDirInUse
from feedmill.local.embedded.launch import NOBODY, Privilege, launch
from feedmill.local.embedded.server import descendants

SOURCES = Path(__file__).parents[3] / "services" / "src"

HOLDER = """
import json, sys, time
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
redis, postgres = EmbeddedRedis(sys.argv[1] + "/redis"), EmbeddedPostgres(sys.argv[1] + "/postgres", fsync=False)
redis.start(); postgres.start()
print(json.dumps({"redis": redis.pid, "postgres": postgres.pid, "url": postgres.url}), flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until_gone(pids: list[int], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still running: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.01)


async def sql(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def run_sql(url: str, statement: str) -> object:
    return asyncio.run(sql(url, statement))


def start_holder(
    folder: Path, *prefix: str, python: str = sys.executable
) -> tuple[subprocess.Popen[str], dict[str, object]]:
    paths = [str(SOURCES), *(path for path in sys.path if path.endswith("site-packages"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HOME": str(folder)}
    process = subprocess.Popen(
        [*prefix, python, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the holder could not start its servers (its error is above)"
    return process, json.loads(line)


def end_holder(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def test_redis_keeps_data_over_stop_and_kill(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        port = server.port
        client = redis.Redis.from_url(server.url)
        client.set("a", "1")
        server.stop()
        assert not server.running
        server.start()
        assert server.port == port
        assert client.get("a") == b"1"
        client.set("b", "2")
        assert client.execute_command("WAITAOF", 1, 0, 60_000)[0] == 1
        first = server.pid
        server.kill()
        assert not server.running
        server.start()
        assert server.pid != first
        assert client.get("b") == b"2"
        client.close()


def test_redis_asks_for_its_password_and_keeps_it_out_of_sight(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        with redis.Redis(host=server.host, port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        secret = (server.data_dir / "password").read_text().strip()
        assert secret in server.url
        assert secret not in server.safe_url
        assert secret not in Path(f"/proc/{server.pid}/cmdline").read_text()
        for name in ("password", "redis.conf"):
            assert (server.data_dir / name).stat().st_mode & 0o077 == 0


def test_redis_repairs_a_torn_tail(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        with redis.Redis.from_url(server.url) as client:
            for number in range(100):
                client.rpush("list", number)
        server.stop()
        part = next(server.aof_dir.glob("*.incr.aof"))
        with part.open("r+b") as file:
            file.truncate(part.stat().st_size - 7)
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.llen("list") == 99


def test_postgres_keeps_data_over_stop_and_kill(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres") as server:
        port = server.port
        run_sql(server.url, "CREATE TABLE t (x int)")
        run_sql(server.url, "INSERT INTO t VALUES (1)")
        server.stop()
        server.start()
        assert server.port == port
        run_sql(server.url, "INSERT INTO t VALUES (2)")
        assert server.pid is not None
        helpers = descendants(server.pid)
        assert len(helpers) > 3
        server.kill()
        assert not any(alive(pid) for pid in helpers)
        server.start()
        assert run_sql(server.url, "SELECT sum(x) FROM t") == 3


def test_postgres_asks_for_its_password(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", fsync=False) as server:
        wrong = f"postgresql://feedmill:wrong@{server.host}:{server.port}/feedmill"
        with pytest.raises(asyncpg.InvalidPasswordError):
            run_sql(wrong, "SELECT 1")
        secret = (server.data_dir / "password").read_text().strip()
        assert secret not in server.safe_url
        assert secret not in Path(f"/proc/{server.pid}/cmdline").read_text()
        assert server.data_dir.stat().st_mode & 0o077 == 0
        psql = [str(server.bin_dir / "psql"), "-XAtc", "SELECT current_database()"]
        shown = subprocess.run(psql, env=server.client_environment(), capture_output=True, text=True, check=True)
        assert shown.stdout.strip() == "feedmill"


def test_a_killed_parent_leaves_nothing_behind_and_the_folder_usable(tmp_path: Path) -> None:
    process, told = start_holder(tmp_path)
    pids = [int(str(told["redis"])), int(str(told["postgres"]))]
    everything = [*pids, *descendants(pids[1])]
    run_sql(str(told["url"]), "CREATE TABLE kept AS SELECT 42 AS x")
    assert all(alive(pid) for pid in pids)
    end_holder(process)
    # At once, while the old servers are still shutting down: start waits for them.
    with EmbeddedRedis(tmp_path / "redis") as server:
        assert server.running
    with EmbeddedPostgres(tmp_path / "postgres", fsync=False) as postgres:
        assert run_sql(postgres.url, "SELECT x FROM kept") == 42
    wait_until_gone(everything)


def test_a_second_user_of_the_folder_gets_a_clear_error(tmp_path: Path) -> None:
    process, _ = start_holder(tmp_path)
    try:
        started = time.monotonic()
        for server in (EmbeddedRedis(tmp_path / "redis"), EmbeddedPostgres(tmp_path / "postgres")):
            with pytest.raises(DataDirInUse, match=f"in use by feedmill process {process.pid}.*--data-dir"):
                server.start()
        assert time.monotonic() - started < 30  # Not the patience with an owner who is gone.
    finally:
        end_holder(process)


async def test_started_in_a_worker_thread_it_outlives_the_thread(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(server.start)
    await loop.shutdown_default_executor()
    try:
        client = redis.asyncio.Redis.from_url(server.url)
        assert await client.ping()
        await client.aclose()
        assert server.running
    finally:
        server.stop()


def test_without_pdeathsig_the_pipe_ends_the_child(tmp_path: Path) -> None:
    script = (
        "import sys, signal, pathlib, os\n"
        "from feedmill.local.embedded.launch import launch\n"
        "out = open(sys.argv[1] + '/out', 'wb')\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "it = launch(['/bin/sleep', '600'], signal_number=signal.SIGTERM, output=out, cwd=here,"
        " environment={}, force_watch=True)\n"
        "print(it.process.pid, flush=True); sys.stdin.read()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}/comm").read_text().strip() != "sleep" or not descendants(pid):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    watcher = descendants(pid)
    end_holder(parent)
    wait_until_gone([pid, *watcher])


def test_a_stopped_child_takes_its_watcher_with_it(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as output:
        started = launch(
            ["/bin/sleep", "600"],
            signal_number=signal.SIGTERM,
            output=output,
            cwd=tmp_path,
            environment={},
            force_watch=True,
        )
    deadline = time.monotonic() + 60
    while not (watcher := descendants(started.process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    started.process.terminate()
    started.process.wait()
    started.close()
    wait_until_gone(watcher)


def test_a_failed_start_shows_the_log(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis", config={"maxmemory-policy": "nonsense"})
    with pytest.raises(EmbeddedError, match=r"(?s)Redis ended at its start \(exit code 1\).*nonsense"):
        server.start()
    assert not server.running
    server.config.clear()
    with server:
        assert server.running


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "one") as first:
        second = EmbeddedRedis(tmp_path / "two", port=first.port)
        with pytest.raises(EmbeddedError, match=f"port {first.port} on 127.0.0.1 is taken"):
            second.start()


def test_other_major_versions_are_told_apart(tmp_path: Path) -> None:
    redis_server = EmbeddedRedis(tmp_path / "redis")
    redis_server.start()
    redis_server.stop()
    (tmp_path / "redis" / "version").write_text("valkey 99\n")
    with pytest.raises(EmbeddedError, match=r"written by valkey 99.*REDIS_BIN.*--data-dir"):
        redis_server.start()

    postgres = EmbeddedPostgres(tmp_path / "postgres", fsync=False)
    postgres.start()
    postgres.stop()
    (postgres.cluster / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 12.*PG_BIN.*pg_dump 12"):
        postgres.start()


def test_stale_files_do_not_hinder_a_start(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", fsync=False)
    (server.data_dir / "pgdata.new").mkdir(parents=True)
    (server.data_dir / "pgdata.new" / "half").write_text("made")
    with server:
        run_sql(server.url, "CREATE TABLE t AS SELECT 1 AS x")
        server.kill()
        # The dead server's number now belongs to a living process of this user: us.
        pid_file = server.cluster / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
        server.start()
        assert run_sql(server.url, "SELECT x FROM t") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to drop its rights")
def test_root_without_user_namespaces(tmp_path: Path) -> None:
    folder = Path("/var/tmp") / f"feedmill-test-{os.getpid()}"
    server = EmbeddedPostgres(folder / "postgres", fsync=False, privilege=Privilege.SETUID)
    try:
        folder.mkdir(mode=0o755)
        with server:
            assert run_sql(server.url, "SELECT 1") == 1
            assert Path(f"/proc/{server.pid}").stat().st_uid == NOBODY
        with server:
            assert server.cluster.stat().st_uid == NOBODY
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    closed = EmbeddedPostgres(tmp_path / "a" / "postgres", privilege=Privilege.SETUID)
    (tmp_path / "a").mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match=r"closed to the user nobody: choose a --data-dir outside"):
        closed.start()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root to become another user")
def test_as_an_ordinary_user() -> None:
    folder = Path("/var/tmp") / f"feedmill-nobody-{os.getpid()}"
    become = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    start_itself = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    version = f"python3.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if subprocess.run([*become, python, "-c", start_itself], capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip(f"no {version} here that another user may run")
    try:
        folder.mkdir(mode=0o700)
        os.chown(folder, NOBODY, NOBODY)
        process, told = start_holder(folder, *become, python=python)
        pids = [int(str(told["redis"])), int(str(told["postgres"]))]
        try:
            assert run_sql(str(told["url"]), "SELECT 1") == 1
            assert all(Path(f"/proc/{pid}").stat().st_uid == NOBODY for pid in pids)
        finally:
            end_holder(process)
        wait_until_gone(pids)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

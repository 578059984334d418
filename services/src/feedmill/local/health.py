"""One health document for the whole of local mode, asked of everything at once, each with a time-out.

What did not answer is null: unknown is never 0 and never an old value.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable
from typing import Any

from redis.exceptions import RedisError

from feedmill.local.manager import ServiceManager
from feedmill.local.positions import Positions, PositionsAway
from feedmill.shared import postgres
from feedmill.shared.redis.pool import RedisPool

TIMEOUT = 2.0
SECTIONS = ("connections", "lag", "freshness", "breaker", "latency", "accounts")
"""Sections of the services' own documents that are shown side by side."""


async def _bounded(work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT):
            found = await work
    except TimeoutError:
        return {"reachable": False, "problem": f"no answer within {TIMEOUT:g} s"}
    return {"reachable": True, "milliseconds": round(1000 * (time.perf_counter() - began), 1)} | found


async def _redis(redis: RedisPool) -> dict[str, Any]:
    try:
        memory = await redis.execute("INFO", "memory")
        return {"usedBytes": memory.get("used_memory"), "maxBytes": memory.get("maxmemory") or None}
    except (RedisError, OSError) as error:
        return {"reachable": False, "problem": str(error)}


def _breaker(redis: RedisPool) -> dict[str, Any]:
    breaker = redis.breaker
    return {
        "state": breaker.state,
        "failures": breaker.failures,
        "retryInSeconds": round(breaker.retry_in, 1),
        "lastError": breaker.last_error if breaker.state != "closed" else "",
    }


async def _postgres(manager: ServiceManager) -> dict[str, Any]:
    try:
        connection = await postgres.connect(manager.servers.database_url, name="feedmill-health", timeout=TIMEOUT)
    except Exception as error:
        if not postgres.is_retryable(error):
            raise
        return {"reachable": False, "problem": postgres.describe(error)}
    try:
        size = await connection.fetchval("SELECT pg_database_size(current_database())")
        return {"databaseBytes": size, "schema": await postgres.revision(connection)}
    except Exception as error:
        if not postgres.is_retryable(error):
            raise
        return {"reachable": False, "problem": postgres.describe(error)}
    finally:
        await postgres.close(connection)


async def _shards(redis: RedisPool, manager: ServiceManager) -> dict[str, Any] | None:
    try:
        found = await Positions(redis, manager.shards).read()
    except PositionsAway:
        return None
    return {
        str(item.shard): {
            "captured": item.captured or None,
            "dispatched": item.dispatched or None,
            "emitted": item.emitted or None,
            "stored": item.stored or None,
        }
        for item in found
    }


async def document(manager: ServiceManager) -> dict[str, Any]:
    """The aggregate: state, servers, shards, and each service's sections by service name."""
    ports = manager.ports()
    redis = manager.redis
    if redis is None or manager.phase in ("waiting", "starting", "stopped"):
        servers: tuple[Any, Any, Any] = (None, None, None)
        answers: dict[int, dict[str, Any] | None] = {}
    else:
        *servers_found, answers = await asyncio.gather(
            _bounded(_redis(redis)),
            _bounded(_postgres(manager)),
            _shards(redis, manager),
            manager.prober.health(ports.values()),
        )
        servers = (servers_found[0] | {"breaker": _breaker(redis)}, servers_found[1], servers_found[2])
    own = {name: answers.get(port) for name, port in ports.items()}
    status = manager.status()
    known = {server.name: dataclasses.asdict(server) for server in status.servers}
    services = {
        item.name: {
            "state": item.state,
            "ready": None if own.get(item.name) is None else bool((own[item.name] or {}).get("ready")),
            "waitingFor": None if own.get(item.name) is None else (own[item.name] or {}).get("waitingFor"),
            "restarts": item.restarts,
            "crashLoop": item.crash_loop,
            "uptimeSeconds": item.uptime_seconds,
            "rssBytes": item.rss_bytes,
            "lastError": item.last_error,
        }
        for item in status.services
    }
    found: dict[str, Any] = {
        "phase": status.phase,
        "step": status.step or None,
        "ready": status.ready,
        "uptimeSeconds": status.uptime_seconds,
        "services": services,
        "redis": {"server": known.get("redis"), "asked": servers[0], "services": _section(own, "redis")},
        "postgres": {"server": known.get("postgres"), "asked": servers[1], "services": _section(own, "postgres")},
        "shards": servers[2],
    }
    for section in SECTIONS:
        found[section] = _section(own, section)
    return found


def _section(own: dict[str, dict[str, Any] | None], section: str) -> dict[str, Any]:
    """Service -> its section; null where the service did not answer. Services without such a section are left out."""
    return {
        name: None if answer is None else answer[section]
        for name, answer in own.items()
        if answer is None or section in answer
    }

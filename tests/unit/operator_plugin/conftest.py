"""A small API server in this process: the few paths the plugin asks, over real HTTP and WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import fnmatch
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import WSMsgType, web
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from feedmill.shared.health import Health, HealthServer
from feedmill_operator import names
from feedmill_operator.plugin import ask
from feedmill_operator.plugin.main import app

Object = dict[str, Any]
NOW = "2026-11-26T00:00:00Z"


@dataclass
class Executed:
    """What a command in a pod answers."""

    out: str = ""
    err: str = ""
    code: int = 0


@dataclass
class ApiServer:
    """Objects by (plural, namespace, name). ``asked``: every request as ``METHOD path?query``."""

    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)
    """Patterns of ``METHOD path`` that are refused with 403."""
    broken: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Pattern -> (status, body) of another refusal."""
    logs: dict[str, list[str]] = field(default_factory=dict)
    """Pod -> lines with the kubelet's time stamp; a pod without has a container that is not started."""
    health: dict[str, Health] = field(default_factory=dict)
    """Pod -> what it says of itself."""
    execute: Callable[[str, list[str]], Executed] = field(default=lambda pod, command: Executed())
    changed: Callable[[Object], None] = field(default=lambda item: None)
    """Called after each PATCH with the object."""
    url: str = ""
    _ports: dict[str, int] = field(default_factory=dict)
    _servers: list[HealthServer] = field(default_factory=list)

    def add(self, plural: str, item: Object) -> Object:
        metadata = item["metadata"]
        metadata.setdefault("namespace", "trading")
        metadata.setdefault("creationTimestamp", NOW)
        metadata.setdefault("uid", f"uid-{metadata['name']}")
        self.objects[plural, metadata["namespace"], metadata["name"]] = item
        return item

    def pod(self, name: str, role: str, *, pipeline: str = "main", feed: str = "", shard: int | None = None) -> Object:
        """One that is Ready and answers as ``health[name]`` says."""
        marks = {names.MANAGED_BY: names.MANAGER, names.COMPONENT: role, names.PIPELINE: pipeline}
        marks |= {names.FEED: feed} if feed else {}
        marks |= {names.SHARD: str(shard)} if shard is not None else {}
        return self.add(
            "pods",
            {
                "metadata": {"name": name, "labels": marks},
                "spec": {"containers": [{"name": role}], "nodeName": "node-1"},
                "status": {
                    "phase": "Running",
                    "podIP": "10.0.0.1",
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"name": role, "restartCount": 0, "state": {"running": {}}}],
                },
            },
        )

    def says(self, pod: str, **sections: Any) -> None:
        """The pod's /health document has these sections."""
        found = self.health.setdefault(pod, Health(pod))
        for name, section in sections.items():
            found.detail(name, lambda section=section: section)  # type: ignore[misc]

    # -- the server

    async def answer(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {request.path}"
        self.asked.append(line + (f"?{request.query_string}" if request.query_string else ""))
        for pattern in self.forbidden:
            if fnmatch.fnmatch(line, pattern):
                return _status(403, "Forbidden", f'User "me" cannot do this: {line}')
        for pattern, (status, body) in self.broken.items():
            if fnmatch.fnmatch(line, pattern):
                return web.Response(status=status, text=body)
        parts = request.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if parts[0] == "namespaces":
            namespace, parts = parts[1], parts[2:]
        plural, name, rest = parts[0], parts[1] if len(parts) > 1 else "", parts[2:]
        if not name:
            return self._list(request, plural, namespace)
        pod = name.partition(":")[0]
        item = self.objects.get((plural, namespace, pod))
        if item is None:
            return _status(404, "NotFound", f'{plural} "{name}" not found')
        if not rest:
            if request.method == "PATCH":
                assert request.content_type == "application/merge-patch+json"
                _merge(item, await request.json())
                self.changed(item)
            return web.json_response(item)
        if rest[0] == "log":
            return await self._log(request, pod)
        if rest[0] == "proxy":
            return await self._proxy(pod, "/" + "/".join(rest[1:]))
        if rest[0] == "exec":
            return await self._exec(request, pod)
        assert rest[0] == "portforward"
        return await self._forward(request, pod)

    def _list(self, request: web.Request, plural: str, namespace: str) -> web.Response:
        wanted = dict(part.split("=") for part in request.query.get("labelSelector", "").split(",") if part)
        found = [
            item
            for (kind, place, _), item in list(self.objects.items())  # A test's thread may add one meanwhile.
            if kind == plural
            and (not namespace or place == namespace)
            and wanted.items() <= (item["metadata"].get("labels") or {}).items()
        ]
        limit, start = int(request.query.get("limit", "0")) or len(found), int(request.query.get("continue") or 0)
        after = str(start + limit) if start + limit < len(found) else ""
        return web.json_response({"items": found[start : start + limit], "metadata": {"continue": after}})

    async def _log(self, request: web.Request, pod: str) -> web.StreamResponse:
        if pod not in self.logs:
            return _status(400, "BadRequest", f'container "x" in pod "{pod}" is waiting to start: ContainerCreating')
        answer = web.StreamResponse()
        await answer.prepare(request)
        sent = 0
        after = request.query.get("sinceTime", "")
        while True:
            for line in self.logs[pod][sent:]:
                sent += 1
                if line.split(" ", 1)[0] > after:
                    await answer.write(f"{line}\n".encode())
            if "follow" not in request.query or ("pods", "trading", pod) not in self.objects:
                return answer
            await asyncio.sleep(0.01)

    async def _port(self, pod: str) -> int:
        """Of a real health server of the pod."""
        if pod not in self._ports:
            server = HealthServer(self.health[pod], "127.0.0.1", 0)
            await server.start()
            self._servers.append(server)
            self._ports[pod] = server.port
        return self._ports[pod]

    async def _proxy(self, pod: str, path: str) -> web.Response:
        if pod not in self.health:
            return _status(503, "ServiceUnavailable", "error trying to reach service: dial tcp: connection refused")
        url = f"http://127.0.0.1:{await self._port(pod)}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return web.Response(status=answer.status, body=await answer.read())

    async def _exec(self, request: web.Request, pod: str) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await socket.prepare(request)
        done = self.execute(pod, request.query.getall("command"))
        for start in range(0, len(done.out), 1000):
            await socket.send_bytes(b"\x01" + done.out[start : start + 1000].encode())
        await socket.send_bytes(b"\x02" + done.err.encode())
        cause = {"reason": "ExitCode", "message": str(done.code)}
        failed = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
        await socket.send_bytes(b"\x03" + json.dumps(failed if done.code else {"status": "Success"}).encode())
        await socket.close()
        return socket

    async def _forward(self, request: web.Request, pod: str) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        port = int(request.query["ports"])
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        if pod not in self.health:
            await socket.send_bytes(b"\x01" + b"connection refused in the pod")
            await socket.close()
            return socket
        reader, writer = await asyncio.open_connection("127.0.0.1", await self._port(pod))

        async def back() -> None:
            while data := await reader.read(4096):
                await socket.send_bytes(b"\x00" + data)
            await socket.close()

        task = asyncio.create_task(back())
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data[0] == 0:
                writer.write(message.data[1:])
        task.cancel()
        writer.close()
        return socket

    async def close(self) -> None:
        for server in self._servers:
            await server.stop()


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code)


def _merge(item: Object, patch: Object) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(item.setdefault(key, {}), value)
        elif value is None:
            item.pop(key, None)
        else:
            item[key] = value


@contextlib.asynccontextmanager
async def _serving(api: ApiServer) -> AsyncIterator[None]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", api.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await api.close()
        await runner.cleanup()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Running, and empty."""
    # What other tests of this process imported has left its metrics in the one registry there is.
    monkeypatch.setattr("feedmill.shared.health.REGISTRY", CollectorRegistry())
    made = ApiServer()
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with _serving(made):
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(60)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(60)
        loop.close()


@dataclass
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[list[str]]:
        """Words of each line of its output."""
        return [line.split() for line in self.out.splitlines()]


@pytest.fixture
def kubeconfig(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the contexts ``here`` (namespace trading, current) and ``there`` (nobody listens)."""
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(make_config(api.url)))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def make_config(url: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [
            {"name": "here", "cluster": {"server": url}},
            {"name": "there", "cluster": {"server": "http://127.0.0.1:9"}},
        ],
        "users": [{"name": "me", "user": {"token": "sesame-open-wide"}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "trading"}},
            {"name": "there", "context": {"cluster": "there", "user": "me"}},
        ],
    }


@pytest.fixture
def feedmill(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """``feedmill("status", "-A")``: the command as a user runs it, standard output not a terminal."""
    monkeypatch.setattr(ask, "ANSWER", 60.0)  # No pod is silent because a busy machine paused.
    runner = CliRunner(env={"COLUMNS": "120"})

    def run(*arguments: str) -> Done:
        result = runner.invoke(app, list(arguments), prog_name="kubectl feedmill")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


def condition(kind: str, status: str, reason: str, message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW}


def make_feed(name: str = "btc", *conditions: Object, **status: Any) -> Object:
    found = [condition("Accepted", "True", "Valid"), *conditions]
    return {
        "metadata": {"name": name, "generation": 2},
        "spec": {"pipelineRef": {"name": "main"}, "exchange": {"name": "binance", "market": "Spot"}},
        "status": {"observedGeneration": 2, "conditions": found, **copy.deepcopy(status)},
    }


def make_pipeline(name: str = "main", *conditions: Object, **status: Any) -> Object:
    found = [condition("Accepted", "True", "Valid"), *conditions]
    return {
        "metadata": {"name": name, "generation": 1},
        "spec": {"processor": {"replicas": 1}},
        "status": {"observedGeneration": 1, "conditions": found, **copy.deepcopy(status)},
    }


def make_account(name: str = "fund", *conditions: Object, **status: Any) -> Object:
    found = [condition("Accepted", "True", "Valid"), *conditions]
    return {
        "metadata": {"name": name, "generation": 1},
        "spec": {
            "pipelineRef": {"name": "main"},
            "exchange": {"name": "binance", "market": "Spot"},
            "credentialsSecretRef": {"name": "fund-key"},
        },
        "status": {"observedGeneration": 1, "conditions": found, **copy.deepcopy(status)},
    }


READY = condition("Ready", "True", "Available")
GOOD_FEED = {
    "data": "Fresh",
    "lag": "<1s",
    "receiver": {"replicas": 2, "updated": 2, "ready": 2},
    "distributor": {"replicas": 1, "updated": 1, "ready": 1},
    "config": {"hash": "abc", "pods": 3, "acknowledged": 3},
}
GOOD_PIPELINE = {
    "feeds": 1,
    "lag": "<1s",
    "processor": {"replicas": 1, "updated": 1, "ready": 1, "selector": ""},
    "config": {"hash": "abc", "pods": 1, "acknowledged": 1},
}


@pytest.fixture
def kit() -> Any:
    """The makers of objects, for tests in other files."""
    return Kit


class Kit:
    """See the functions of this module."""

    condition = staticmethod(condition)
    feed = staticmethod(make_feed)
    pipeline = staticmethod(make_pipeline)
    account = staticmethod(make_account)
    config = staticmethod(make_config)
    Executed = Executed
    READY, GOOD_FEED, GOOD_PIPELINE = READY, GOOD_FEED, GOOD_PIPELINE

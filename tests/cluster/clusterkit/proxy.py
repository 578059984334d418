"""A proxy between the operator and the API server that counts requests and breaks them on demand."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from aiohttp.client_exceptions import ClientError

from clusterkit.api import Api

_DROPPED = {"connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length", "host", "upgrade"}
_METHODS = {"POST": "create", "PUT": "update", "DELETE": "delete"}
_ADMIN, _PLAIN = web.AppKey("admin", ClientSession), web.AppKey("plain", ClientSession)
"""Towards the API server: with the administrator's certificate, or with what the client itself brings."""
_EXPIRED = {
    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
    "message": "too old resource version: 1 (2)",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, in the words of RBAC."""

    verb: str
    """get, list, watch, create, update, patch, apply, delete."""
    resource: str
    """``deployments``, ``exchangefeeds/status``."""
    namespace: str
    name: str

    @classmethod
    def of(cls, method: str, path: str, query: Mapping[str, str], content_type: str) -> Request:
        parts = path.strip("/").split("/")
        # api/v1/... or apis/group/version/...; what is shorter is discovery.
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        resource, name = (rest[0] if rest else path), (rest[1] if len(rest) > 1 else "")
        if len(rest) > 2:
            resource = f"{resource}/{rest[2]}"
        if method == "GET":
            verb = "watch" if query.get("watch") in ("1", "true") else "get" if name or not rest else "list"
        elif method == "PATCH":
            verb = "apply" if "apply-patch" in content_type else "patch"
        else:
            verb = _METHODS.get(method, method.lower())
        return cls(verb, resource, namespace, name)


@dataclass(slots=True)
class Fault:
    """What happens to the next ``times`` requests that ``when`` fits."""

    when: Callable[[Request], bool]
    status: int
    """HTTP status of the answer; 0 = the connection is cut without one."""
    times: int = 1
    reason: str = ""
    retry_after: int | None = None
    done: int = 0

    @property
    def left(self) -> bool:
        return self.done < self.times


def writes(request: Request) -> bool:
    return request.verb in ("create", "update", "patch", "apply", "delete") and not request.resource.startswith(
        "leases"
    )


@dataclass
class FaultProxy:
    """Use :func:`proxying`. Plain HTTP towards the operator, TLS towards the API server."""

    upstream: Api
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(verb, resource) -> requests that reached the proxy."""
    seen: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    latency: float = 0.0
    """Seconds every request waits."""
    out: bool = False
    """True: every connection is cut, as if the API server were away."""
    url: str = ""
    _watches: set[asyncio.Task[Any]] = field(default_factory=set)
    _expire: set[asyncio.Task[Any]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = None

    # --- what a test does ---------------------------------------------------------------------------------------

    def fail(self, when: Callable[[Request], bool], status: int, times: int = 1, **more: Any) -> Fault:
        """The next requests that fit are answered so and never reach the API server."""
        fault = Fault(when, status, times, **more)
        self.faults.append(fault)
        return fault

    def drop_watches(self) -> int:
        """Cut all open watches; how many."""
        return self._on_loop(self._cut)

    def expire_watches(self) -> int:
        """Each open watch says that its resourceVersion has expired (410) and ends; how many."""
        return self._on_loop(self._expire_all)

    def outage(self) -> None:
        """Cut everything, until ``restore``."""
        self.out = True
        self.drop_watches()

    def restore(self) -> None:
        self.out = False

    def count(self, *verbs: str, resource: str = "") -> int:
        """Requests so far of these verbs (all, when none is named)."""
        return sum(
            number
            for (verb, what), number in self.counts.items()
            if (not verbs or verb in verbs) and (not resource or what == resource)
        )

    def mark(self) -> Counter[tuple[str, str]]:
        return Counter(self.counts)

    def since(self, mark: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
        """(verb, resource) -> requests since ``mark``."""
        return Counter(self.counts) - mark

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    # --- how it works -------------------------------------------------------------------------------------------

    def _on_loop(self, what: Callable[[], int]) -> int:
        assert self._loop is not None

        async def run() -> int:
            return what()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)

    def _cut(self) -> int:
        for task in self._watches:
            task.cancel()
        return len(self._watches)

    def _expire_all(self) -> int:
        self._expire |= self._watches
        return self._cut()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = Request.of(request.method, request.path, request.query, request.content_type)
        self.counts[asked.verb, asked.resource] += 1
        self.seen.append(asked)
        if self.latency:
            await asyncio.sleep(self.latency)
        if self.out:
            return self._abort(request)
        for fault in self.faults:
            if fault.left and fault.when(asked):
                fault.done += 1
                return self._broken(request, fault)
        try:
            return await self._forward(request, asked)
        except (ClientError, TimeoutError):
            return self._abort(request)

    @staticmethod
    def _abort(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)

    def _broken(self, request: web.Request, fault: Fault) -> web.Response:
        if fault.status == 0:
            return self._abort(request)
        reason = fault.reason or {
            409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable",
        }.get(fault.status, "Unknown")  # fmt: skip
        body = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
            "code": fault.status, "message": f"injected by the test: {reason}",
        }  # fmt: skip
        headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
        return web.json_response(body, status=fault.status, headers=headers)

    async def _forward(self, request: web.Request, asked: Request) -> web.StreamResponse:
        own = "Authorization" in request.headers
        session: ClientSession = request.app[_PLAIN if own else _ADMIN]
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        headers["Accept-Encoding"] = "identity"
        body = await request.read()
        url = f"{self.upstream.server}{request.raw_path}"
        async with session.request(request.method, url, data=body or None, headers=headers) as answer:
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED}
            if asked.verb != "watch" or answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), headers=passed)
            response = web.StreamResponse(status=200, headers=passed)
            await response.prepare(request)
            task = asyncio.ensure_future(self._stream(answer.content.iter_any(), response))
            self._watches.add(task)
            try:
                await task
            except asyncio.CancelledError:
                if task not in self._expire:
                    self._abort(request)
                    return response
                line = json.dumps({"type": "ERROR", "object": _EXPIRED}) + "\n"
                await response.write(line.encode())
            except (ConnectionError, ClientError):
                pass
            finally:
                self._watches.discard(task)
                self._expire.discard(task)
                task.cancel()
            return response

    @staticmethod
    async def _stream(chunks: Any, response: web.StreamResponse) -> None:
        async for chunk in chunks:
            await response.write(chunk)

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        assert self.upstream.tls is not None
        timeout = ClientTimeout(total=None, sock_connect=10)
        plain = ssl.create_default_context(cadata=self.upstream.ca.decode())
        async with (
            ClientSession(connector=TCPConnector(ssl=self.upstream.tls, limit=0), timeout=timeout) as admin,
            ClientSession(connector=TCPConnector(ssl=plain, limit=0), timeout=timeout) as other,
        ):
            app = web.Application(client_max_size=16 << 20)
            app[_ADMIN], app[_PLAIN] = admin, other
            app.router.add_route("*", "/{path:.*}", self.handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            started.set()
            try:
                await stop.wait()
            finally:
                self._cut()
                await runner.cleanup()


@contextmanager
def proxying(upstream: Api) -> Iterator[FaultProxy]:
    """A proxy in front of an API server, in a thread of its own."""
    proxy = FaultProxy(upstream)
    started = threading.Event()
    stops: list[Callable[[], None]] = []

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        await proxy.serve(started, stop)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(60)
    try:
        yield proxy
    finally:
        stops[0]()
        thread.join(60)

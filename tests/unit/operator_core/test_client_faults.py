"""The API client against a server that answers as told: errors, Retry-After, broken connections, expired lists."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kubernetes.client.configuration import Configuration

from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError
from feedmill_operator.kube.client import KubeClient

CUT = object()
"""The connection is closed without an answer."""


class Server:
    """Gives the prepared answers in order, the last one for ever: (status, headers, body) or CUT."""

    def __init__(self) -> None:
        self.answers: list[Any] = [(200, {}, {})]
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.gate: threading.Event | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.requests.append((self.command, self.path, dict(self.headers), body))
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                if server.gate is not None:
                    server.gate.wait(30)
                if answer is CUT:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, headers, body = answer
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is what some tests want."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


Make = Callable[..., KubeClient]


@pytest.fixture
def client(server: Server) -> Iterator[Make]:
    made: list[KubeClient] = []

    def make(**options: Any) -> KubeClient:
        configuration = Configuration(host=server.url)
        configuration.api_key["BearerToken"] = "Bearer some-token"
        made.append(KubeClient(configuration, random_source=random.Random(1), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def status(code: int, reason: str, message: str, **details: Any) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }


CONFIG: dict[str, Any] = {
    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "ns"}, "data": {"x": "1"}
}  # fmt: skip


async def test_a_refusal_is_told_with_reason_and_message(server: Server, client: Make) -> None:
    server.answers = [(403, {}, status(403, "Forbidden", "configmaps is forbidden"))]
    with pytest.raises(ApiError) as caught:
        await client().apply(kinds.CONFIG_MAP, CONFIG)
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")
    assert caught.value.message == "configmaps is forbidden"
    assert len(server.requests) == 1  # It would be refused again.


async def test_apply_is_a_forced_server_side_apply_as_our_manager(server: Server, client: Make) -> None:
    await client().apply(kinds.CONFIG_MAP, CONFIG, dry_run=True)
    method, path, headers, body = server.requests[0]
    assert (method, path) == (
        "PATCH",
        "/api/v1/namespaces/ns/configmaps/c?fieldManager=feedmill-operator&force=true&dryRun=All",
    )
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["Authorization"] == "Bearer some-token"
    assert json.loads(body) == CONFIG


@pytest.mark.parametrize("header", [True, False])
async def test_too_many_requests_are_tried_again_when_the_server_says(
    server: Server, client: Make, header: bool
) -> None:
    refused = status(429, "TooManyRequests", "slow down", **({} if header else {"retryAfterSeconds": 1}))
    server.answers = [(429, {"Retry-After": "1"} if header else {}, refused), (201, {}, CONFIG)]
    begun = time.monotonic()
    # A create too: nothing was done when it was refused so.
    assert await client().create(kinds.CONFIG_MAP, CONFIG) == CONFIG
    assert time.monotonic() - begun >= 1
    assert len(server.requests) == 2


async def test_a_server_that_wants_us_to_wait_long_is_told_to_the_caller(server: Server, client: Make) -> None:
    server.answers = [(503, {"Retry-After": "120"}, status(503, "ServiceUnavailable", "starting"))]
    with pytest.raises(ApiError) as caught:
        await client().get(kinds.CONFIG_MAP, "ns", "c")
    assert caught.value.retry_after == 120
    assert len(server.requests) == 1


async def test_a_broken_connection_is_tried_again_except_for_a_create(server: Server, client: Make) -> None:
    server.answers = [CUT, CUT, (200, {}, CONFIG)]
    assert await client().apply(kinds.CONFIG_MAP, CONFIG) == CONFIG
    assert len(server.requests) == 3
    server.requests.clear()
    server.answers = [CUT, (201, {}, CONFIG)]
    with pytest.raises(ApiError) as caught:
        await client().create(kinds.CONFIG_MAP, CONFIG)
    assert caught.value.status == 0
    assert len(server.requests) == 1


async def test_nobody_there_is_an_error_after_some_tries(server: Server, client: Make) -> None:
    server.answers = [CUT]
    with pytest.raises(ApiError, match="no answer") as caught:
        await client(attempts=2).get(kinds.CONFIG_MAP, "ns", "c")
    assert caught.value.status == 0
    assert len(server.requests) == 2


async def test_a_silent_server_is_given_up_after_the_timeout_and_does_not_hold_the_loop(
    server: Server, client: Make
) -> None:
    server.gate = threading.Event()
    server.answers = [(200, {}, CONFIG)]
    # A loop that was held would open the gate too late: only then would it have been answered.
    asking = asyncio.create_task(client(attempts=1, read_timeout=60.0).get(kinds.CONFIG_MAP, "ns", "c"))
    while not server.requests and not asking.done():
        await asyncio.sleep(0.01)
    assert not asking.done()
    server.gate.set()
    assert await asking == CONFIG
    server.gate.clear()
    begun = time.monotonic()
    with pytest.raises(ApiError, match="timed out"):
        await client(attempts=1, read_timeout=0.3).get(kinds.CONFIG_MAP, "ns", "c")
    assert time.monotonic() - begun >= 0.3
    server.gate.set()


async def test_pages_are_followed_and_a_list_that_expired_starts_anew(server: Server, client: Make) -> None:
    def page(*names: str, token: str = "") -> dict[str, Any]:
        return {"metadata": {"continue": token}, "items": [{"metadata": {"name": name}} for name in names]}

    expired = (410, {}, status(410, "Expired", "the provided continue parameter is too old"))
    server.answers = [(200, {}, page("a", token="t1")), expired, (200, {}, page("a", token="t2")), (200, {}, page("b"))]
    found = await client().list(kinds.CONFIG_MAP, "ns", labels="x=y,z")
    assert [item["metadata"]["name"] for item in found] == ["a", "b"]
    assert {item["kind"] for item in found} == {"ConfigMap"}
    assert [path.partition("?")[2] for _, path, _, _ in server.requests] == [
        "limit=500&labelSelector=x%3Dy%2Cz",
        "limit=500&labelSelector=x%3Dy%2Cz&continue=t1",
        "limit=500&labelSelector=x%3Dy%2Cz",
        "limit=500&labelSelector=x%3Dy%2Cz&continue=t2",
    ]


async def test_an_answer_that_is_no_json_is_an_api_error(server: Server, client: Make) -> None:
    server.answers = [(200, {}, b'{"metadata": {"na')]
    with pytest.raises(ApiError, match="cannot be read"):
        await client().get(kinds.CONFIG_MAP, "ns", "c")
    server.answers = [(502, {}, b"<html>secret page</html>")]
    with pytest.raises(ApiError) as caught:
        await client().get(kinds.CONFIG_MAP, "ns", "c")
    assert caught.value.status == 502
    assert "secret page" not in str(caught.value)


async def test_no_more_than_the_bound_is_under_way(server: Server, client: Make) -> None:
    server.gate = threading.Event()
    server.answers = [(200, {}, CONFIG)]
    one = client(concurrency=3)
    asking = [asyncio.create_task(one.get(kinds.CONFIG_MAP, "ns", "c")) for _ in range(10)]
    while len(server.requests) < 3:
        await asyncio.sleep(0.01)
    assert one.busy
    await asyncio.sleep(0.05)
    assert len(server.requests) == 3
    server.gate.set()
    await asyncio.gather(*asking)
    assert len(server.requests) == 10
    assert not one.busy


async def test_delete_is_bound_to_a_uid_and_tells_whether_there_was_one(server: Server, client: Make) -> None:
    one = client()
    assert await one.delete(kinds.CONFIG_MAP, "ns", "c", uid="u1")
    body = json.loads(server.requests[0][3])
    assert (body["preconditions"], body["propagationPolicy"]) == ({"uid": "u1"}, "Background")
    server.answers = [(404, {}, status(404, "NotFound", "no")), (409, {}, status(409, "Conflict", "another uid"))]
    assert not await one.delete(kinds.CONFIG_MAP, "ns", "c", uid="u1")
    assert not await one.delete(kinds.CONFIG_MAP, "ns", "c", uid="u1")

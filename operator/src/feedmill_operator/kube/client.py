"""The API server through the ``kubernetes`` package: its configuration and connections, our requests as plain JSON.

Requests run in threads of their own, so that neither a slow server nor the decoding of an answer holds the event loop.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import urllib3
from kubernetes import config as kube_config
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import RESTClientObject

from feedmill import __version__
from feedmill_operator import metrics
from feedmill_operator.kube.api import ApiError, Kind, Manifest, Version
from feedmill_operator.names import FIELD_MANAGER

# Inside the class, list is a method.
_Pages = list[bytes]
_Versions = list[Version]
_Manifests = list[Manifest]

T = TypeVar("T")

_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML.
_METADATA_LIST = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{_JSON}"
_PAGE = 500
_CONNECT, _READ = 5.0, 30.0
"""Seconds."""
_ATTEMPTS = 4
_BASE, _CAP = 0.2, 3.0
"""Of the back-off between tries, seconds."""
_LONGEST_WAIT = 10.0
"""A server that wants us to wait longer is told to the caller instead, who has a queue."""


class BadKubeconfig(Exception):
    """There is no usable way to an API server; the message says what was looked for."""


def load_configuration(kubeconfig: Path | None = None) -> Configuration:
    """Of the given file; else of the pod's service account; else of ``KUBECONFIG`` or ``~/.kube/config``.

    Raises BadKubeconfig.
    """
    configuration = Configuration()
    try:
        if kubeconfig is not None:
            kube_config.load_kube_config(str(kubeconfig), client_configuration=configuration, persist_config=False)
            return configuration
        try:
            kube_config.load_incluster_config(client_configuration=configuration)
        except kube_config.ConfigException:
            kube_config.load_kube_config(client_configuration=configuration, persist_config=False)
    except (kube_config.ConfigException, OSError, KeyError, ValueError) as error:
        where = str(kubeconfig) if kubeconfig else "a service account, KUBECONFIG or ~/.kube/config"
        raise BadKubeconfig(f"no API server by {where}: {error}; give --kubeconfig FILE") from error
    return configuration


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the API server, for a library that does it itself. Files may be temporary ones."""

    server: str
    ca_path: str | None = None
    insecure: bool = False
    authorization: str | None = field(default=None, repr=False)
    """Value of the header: ``Bearer ...``."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    certificate_path: str | None = None
    key_path: str | None = None


def credentials(configuration: Configuration) -> Credentials:
    """As they are now: a service account's token is read anew when it is old."""
    return Credentials(
        server=str(configuration.host),
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        authorization=configuration.get_api_key_with_prefix("BearerToken", alias="authorization"),
        username=configuration.username or None,
        password=configuration.password or None,
        certificate_path=configuration.cert_file,
        key_path=configuration.key_file,
    )


class KubeClient:
    """A :class:`~feedmill_operator.kube.api.KubeApi`. ``concurrency``: most requests under way at a time."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        concurrency: int = 16,
        connect_timeout: float = _CONNECT,
        read_timeout: float = _READ,
        attempts: int = _ATTEMPTS,
        random_source: random.Random | None = None,
    ) -> None:
        # A refused or reset connection is retried here, where it is counted and may be cancelled.
        configuration.retries = False
        configuration.connection_pool_maxsize = concurrency
        self._configuration = configuration
        self._host = str(configuration.host).rstrip("/")
        self._pool = RESTClientObject(configuration).pool_manager
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="kube")
        self._timeout = urllib3.Timeout(connect=connect_timeout, read=read_timeout)
        self._attempts = attempts
        self._random = random_source or random.Random()
        self._lock = threading.Lock()
        self._under_way = 0

    def close(self) -> None:
        """Start nothing more. Requests under way end in their threads, at the latest after their timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.clear()

    @property
    def busy(self) -> bool:
        """Requests are under way still: the interpreter would wait for them at its end."""
        return self._under_way > 0

    # The protocol.

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        try:
            return await self._object("get", kind, "GET", kind.path(namespace, quote(name)))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: Kind, namespace: str | None, *, labels: str = "") -> list[Manifest]:
        found: _Manifests = []
        for content in await self._pages(kind, namespace, labels, _JSON):
            found += _read(content, _Items).items or ()
        for item in found:  # Items of lists come without them.
            item.setdefault("apiVersion", kind.api_version)
            item.setdefault("kind", kind.kind)
        return found

    async def versions(self, kind: Kind, namespace: str | None, *, labels: str = "") -> Sequence[Version]:
        found: _Versions = []
        for content in await self._pages(kind, namespace, labels, _METADATA_LIST):
            found += (item.metadata for item in _read(content, _Metadatas).items or ())
        return found

    async def apply(self, kind: Kind, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        return await self._object("apply", kind, "PATCH", _path(kind, manifest), query, manifest, _APPLY)

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        query = {"fieldManager": FIELD_MANAGER}
        return await self._object("replace", kind, "PUT", _path(kind, manifest), query, manifest)

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        path = kind.path(manifest["metadata"].get("namespace"))
        query = {"fieldManager": FIELD_MANAGER}
        return await self._object("create", kind, "POST", path, query, manifest, idempotent=False)

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Manifest:
        query = {"fieldManager": FIELD_MANAGER}
        return await self._object("patch", kind, "PATCH", kind.path(namespace, quote(name)), query, body, _MERGE)

    async def patch_status(self, kind: Kind, namespace: str, name: str, body: Mapping[str, Any]) -> Manifest:
        path = kind.path(namespace, quote(name), "status")
        query = {"fieldManager": FIELD_MANAGER}
        return await self._object("patch_status", kind, "PATCH", path, query, body, _MERGE)

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None, propagation: str = "Background"
    ) -> bool:
        body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("delete", kind.kind, "DELETE", kind.path(namespace, quote(name)), {}, body)
        except ApiError as error:
            # Another uid: that one is gone and its name taken anew.
            if error.status == 404 or (error.status == 409 and uid is not None):
                return False
            raise
        return True

    async def serves(self, kind: Kind) -> bool:
        root = "/api/v1" if kind.api_version == "v1" else f"/apis/{kind.api_version}"
        try:
            content = await self._call("discover", kind.kind, "GET", root)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return any(found.name == kind.plural for found in _read(content, _Served).resources or ())

    # Below it.

    async def _pages(self, kind: Kind, namespace: str | None, labels: str, accept: str) -> Sequence[bytes]:
        for last in (False, False, True):
            pages: _Pages = []
            query = {"limit": str(_PAGE), **({"labelSelector": labels} if labels else {})}
            try:
                while True:
                    content = await self._call("list", kind.kind, "GET", kind.path(namespace), query, accept=accept)
                    pages.append(content)
                    query["continue"] = _read(content, _Page).metadata.token
                    if not query["continue"]:
                        return pages
            except ApiError as error:
                # 410: the list's snapshot was compacted away meanwhile; it starts anew.
                if error.status != 410 or last:
                    raise
        raise AssertionError("unreachable")

    async def _object(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        *,
        idempotent: bool = True,
    ) -> Manifest:
        content = await self._call(verb, kind.kind, method, path, query, body, content_type, idempotent=idempotent)
        return _read(content, _Object)

    async def _call(
        self,
        verb: str,
        kind: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        *,
        accept: str = _JSON,
        idempotent: bool = True,
    ) -> bytes:
        """The answer's content; raises ApiError once the tries are used up or would not help."""
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else msgspec.json.encode(body)
        loop = asyncio.get_running_loop()
        for attempt in range(self._attempts):
            with metrics.api_waiting.track_inprogress():
                answer = await loop.run_in_executor(
                    self._threads, self._send, verb, kind, method, url, data, content_type, accept
                )
            if isinstance(answer, bytes):
                return answer
            wait = self._wait(answer, attempt, idempotent)
            if wait is None:
                raise answer
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    def _wait(self, error: ApiError, attempt: int, idempotent: bool) -> float | None:
        """Seconds until the next try; None = tell the caller."""
        if attempt + 1 >= self._attempts:
            return None
        if error.status == 429:  # Refused before anything was done.
            least = error.retry_after or 0.0
        elif error.status == 0 and idempotent:
            least = 0.0
        elif error.status >= 500 and error.retry_after is not None and idempotent:
            least = error.retry_after
        else:
            return None
        if least > _LONGEST_WAIT:
            return None
        return least + self._random.uniform(0.0, min(_CAP, _BASE * 2.0**attempt))

    def _send(
        self, verb: str, kind: str, method: str, url: str, data: bytes | None, content_type: str, accept: str
    ) -> bytes | ApiError:
        """One try, in a thread. Gives errors rather than raising them: no traceback keeps the request's body alive."""
        with self._lock:
            self._under_way += 1
        try:
            return self._send_one(verb, kind, method, url, data, content_type, accept)
        finally:
            with self._lock:
                self._under_way -= 1

    def _send_one(
        self, verb: str, kind: str, method: str, url: str, data: bytes | None, content_type: str, accept: str
    ) -> bytes | ApiError:
        headers = {"Accept": accept, "User-Agent": f"feedmill-operator/{__version__}"}
        token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        elif self._configuration.username:
            headers["Authorization"] = str(self._configuration.get_basic_auth_token())
        if data is not None:
            headers["Content-Type"] = content_type
        started = time.perf_counter()
        try:
            # kubernetes 36 has no types: its pool is urllib3's.
            answer: urllib3.BaseHTTPResponse = self._pool.request(
                method, url, body=data, headers=headers, timeout=self._timeout
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            metrics.api_requests.labels(verb, kind, "0").inc()
            return ApiError(0, "", f"{type(error).__name__}: {error}")
        metrics.api_seconds.labels(verb).observe(time.perf_counter() - started)
        metrics.api_requests.labels(verb, kind, str(answer.status)).inc()
        if answer.status < 400:
            return answer.data
        return _refused(answer.status, answer.data, answer.headers.get("Retry-After"))


class _Details(msgspec.Struct):
    retryAfterSeconds: float | None = None


class _Status(msgspec.Struct):
    kind: str = ""
    reason: str | None = None
    message: str | None = None
    details: _Details | None = None


class _ListMeta(msgspec.Struct):
    token: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta


class _Items(msgspec.Struct):
    items: list[dict[str, Any]] | None = None
    """Go writes an empty list as null."""


class _Metadata(msgspec.Struct):
    metadata: Version


class _Metadatas(msgspec.Struct):
    items: list[_Metadata] | None = None


class _Resource(msgspec.Struct):
    name: str


class _Served(msgspec.Struct):
    resources: list[_Resource] | None = None


_Object = dict[str, Any]


def _read(content: bytes, form: type[T]) -> T:
    """Raises ApiError where the answer was cut short, or is somebody else's."""
    try:
        return msgspec.json.decode(content, type=form)
    except msgspec.DecodeError as error:
        raise ApiError(0, "", f"the answer cannot be read: {error}") from error


def _refused(status: int, content: bytes, header: str | None) -> ApiError:
    """Of an answer that is a Status object, or a proxy's page."""
    try:
        found = msgspec.json.decode(content, type=_Status)
    except msgspec.DecodeError:
        found = _Status()
    wait = _seconds(header)
    if wait is None and found.details is not None and found.details.retryAfterSeconds:
        wait = found.details.retryAfterSeconds
    message = found.message if found.kind == "Status" and found.message else "the answer is no Status object"
    return ApiError(status, found.reason or "", message[:2000], retry_after=wait)


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None  # A date: the API server never sends one.


def _path(kind: Kind, manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return kind.path(metadata.get("namespace"), quote(metadata["name"]))

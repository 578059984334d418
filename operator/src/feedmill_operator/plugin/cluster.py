"""The API server as the user of kubectl reaches it: kubeconfig, context, his rights. Only place of the client here.

Everything goes through plain URL paths: no generated models, so the answers are the objects themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from feedmill_operator.kube.api import ApiError, Kind, Manifest
from feedmill_operator.plugin import forward
from feedmill_operator.plugin.errors import WRONG, PluginError
from feedmill_operator.plugin.execute import Executed, run

TIMEOUT = 15.0
"""Seconds for an answer of the API server."""
POOL = 32
PAGE = 500
Query = Sequence[tuple[str, str]]
_QUERY = re.compile(r"(?<=[^\s\"?])\?[^\s\"]*(?=\":)")
"""Of a URL that the API server repeats (``Post "https://node/exec/x?command=...": refused``): long and of no use."""


class Cluster:
    """One API server. All methods raise ApiError; they may be called from several threads."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._configuration = client.configuration
        self._pool = client.rest_client.pool_manager
        self.server = str(client.configuration.host).rstrip("/")
        self.namespace = namespace
        """Of the context: where nothing else is said."""

    # -- objects

    def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """None when there is none of that name."""
        try:
            return self._json("GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404 and "could not find the requested resource" not in error.message:
                return None
            raise

    def list(self, kind: Kind, namespace: str | None, labels: str = "") -> list[Manifest]:
        """All of a namespace, or of all when it is None."""
        found: list[Manifest] = []
        more = ""
        while True:
            query = [("limit", str(PAGE))]
            query += [("labelSelector", labels)] if labels else []
            query += [("continue", more)] if more else []
            page = self._json("GET", kind.path(namespace), query)
            found += page.get("items") or []
            more = str((page.get("metadata") or {}).get("continue") or "")
            if not more:
                return found

    def annotate(self, kind: Kind, namespace: str, name: str, annotations: Mapping[str, str | None]) -> Manifest:
        """None removes one."""
        body = json.dumps({"metadata": {"annotations": dict(annotations)}}).encode()
        return self._json("PATCH", kind.path(namespace, name), body=body)

    # -- pods

    def proxied(self, namespace: str, pod: str, port: int, path: str, timeout: float) -> bytes:
        """GET of a pod's own HTTP server through the API server (right: pods/proxy)."""
        return self._bytes("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}", timeout=timeout)

    def forwarded(self, namespace: str, pod: str, port: int, path: str, timeout: float) -> bytes:
        """The same through a forwarded port (right: pods/portforward). NetworkPolicies do not matter to it."""
        url = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?{urlencode({'ports': port})}"
        status, body = forward.get(self._websocket(url, timeout), path, timeout)
        if status != 200:
            raise ApiError(status, "", body.decode(errors="replace")[:300])
        return body

    def log(self, namespace: str, pod: str, query: Query, *, follow: bool = False) -> Iterator[bytes]:
        """Lines of a pod's log. Following ends with the pod (or when the generator is closed)."""
        answer = self._ask(
            "GET",
            f"/api/v1/namespaces/{namespace}/pods/{pod}/log",
            [*query, *([("follow", "true")] if follow else [])],
            timeout=None if follow else TIMEOUT,
        )
        try:
            rest = b""
            for chunk in answer.stream(1 << 16, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
            if rest:
                yield rest
        except Exception as error:
            if not _is_network(error):
                raise
            raise ApiError(0, "", f"the log broke off: {error}") from error
        finally:
            answer.close()

    def execute(self, namespace: str, pod: str, container: str, command: Sequence[str], timeout: float) -> Executed:
        """Run a command in a container (right: pods/exec)."""
        query = [("container", container), ("stdout", "true"), ("stderr", "true")]
        query += [("command", part) for part in command]
        url = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec?{urlencode(query)}"
        return run(self._websocket(url, timeout), timeout)

    # -- transport

    def _headers(self) -> dict[str, str]:
        given = self._configuration.auth_settings().values()
        return {setting["key"]: setting["value"] for setting in given if setting.get("value")}

    def _websocket(self, path: str, timeout: float) -> Any:
        from kubernetes.stream import ws_client
        from websocket import WebSocketBadStatusException, WebSocketException

        url = "ws" + (self.server + path).removeprefix("http")
        try:
            socket = ws_client.create_websocket(self._configuration, url, self._headers())
        except WebSocketBadStatusException as error:
            raise _refused(error.status_code, error.resp_body or b"") from error
        except (WebSocketException, OSError) as error:
            raise ApiError(0, "", _short(error)) from error
        socket.settimeout(timeout)
        return socket

    def _ask(
        self, method: str, path: str, query: Query = (), body: bytes | None = None, timeout: float | None = TIMEOUT
    ) -> Any:
        import urllib3

        headers = self._headers() | {"Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        url = self.server + path + (f"?{urlencode(query)}" if query else "")
        limits = urllib3.Timeout(connect=TIMEOUT if timeout is None else min(timeout, TIMEOUT), read=timeout)
        try:
            answer = self._pool.request(
                method, url, headers=headers, body=body, timeout=limits, retries=False, preload_content=False,
                redirect=False,
            )  # fmt: skip
        except Exception as error:
            if not _is_network(error):
                raise
            raise ApiError(0, "", _short(error)) from error
        if answer.status >= 300:
            content = answer.read()
            answer.release_conn()
            raise _refused(answer.status, content)
        return answer

    def _bytes(
        self, method: str, path: str, query: Query = (), body: bytes | None = None, timeout: float = TIMEOUT
    ) -> bytes:
        answer = self._ask(method, path, query, body, timeout)
        try:
            return bytes(answer.read())
        except Exception as error:
            if not _is_network(error):
                raise
            raise ApiError(0, "", _short(error)) from error
        finally:
            answer.release_conn()

    def _json(self, method: str, path: str, query: Query = (), body: bytes | None = None) -> Manifest:
        content = self._bytes(method, path, query, body)
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ApiError(0, "", f"{self.server} does not speak like a Kubernetes API server")
        return found


def connect(kubeconfig: str | None, context: str | None) -> Cluster:
    """By ``--kubeconfig``, else KUBECONFIG, else ~/.kube/config, else, in a pod, its service account.

    Nothing is asked of the server yet. Raises PluginError.
    """
    from kubernetes import client, config

    files = _files(kubeconfig)
    if files is None and "KUBERNETES_SERVICE_HOST" in os.environ and context is None:
        made = client.Configuration()
        config.load_incluster_config(client_configuration=made)
        made.connection_pool_maxsize = POOL
        own = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
        return Cluster(client.ApiClient(made), own.read_text().strip() if own.exists() else "default")
    if files is None:
        raise PluginError(
            "there is no kubeconfig (~/.kube/config): give --kubeconfig FILE or set KUBECONFIG; kind writes one with "
            "kind export kubeconfig",
            WRONG,
        )
    made = client.Configuration()
    try:
        contexts, active = config.list_kube_config_contexts(files)
        chosen = next((item for item in contexts if item["name"] == context), None) if context else active
        if chosen is None:
            raise PluginError(_no_context(context, [item["name"] for item in contexts]), WRONG)
        config.load_kube_config(files, context, client_configuration=made, persist_config=False)
    except PluginError:
        raise
    except Exception as error:
        # Its YAML errors, missing keys and credential programs have no common class.
        raise PluginError(f"the kubeconfig {files} cannot be used: {_short(error)}", WRONG) from error
    made.connection_pool_maxsize = POOL
    return Cluster(client.ApiClient(made), str((chosen.get("context") or {}).get("namespace") or "default"))


def _files(kubeconfig: str | None) -> str | None:
    given = kubeconfig or os.environ.get("KUBECONFIG") or ""
    if given:
        parts = [part for part in given.split(os.pathsep) if part]
        if kubeconfig is not None or not any(Path(part).expanduser().exists() for part in parts):
            missing = next((part for part in parts if not Path(part).expanduser().exists()), None)
            if missing is not None:
                source = "--kubeconfig" if kubeconfig is not None else "KUBECONFIG"
                raise PluginError(f"{source}: there is no file {missing}: check the path", WRONG)
        return given
    default = Path("~/.kube/config").expanduser()
    return str(default) if default.exists() else None


def _no_context(context: str | None, names: Sequence[str]) -> str:
    if context is None:
        return "the kubeconfig has no current context: give --context, or kubectl config use-context NAME"
    from feedmill.resources.problems import choose

    return f"--context {context}: the kubeconfig has none of that name: {choose(context, names)}"


def _is_network(error: Exception) -> bool:
    from urllib3.exceptions import HTTPError

    return isinstance(error, (HTTPError, OSError, HTTPException))


def _short(error: BaseException) -> str:
    """The cause at the root, without object addresses."""
    text = str(getattr(error, "reason", None) or error) or type(error).__name__
    return text.rsplit(">: ", 1)[-1].split("\n", 1)[0][:300]


def _refused(status: int, content: bytes) -> ApiError:
    """From the server's Status object, or whatever it said."""
    with contextlib.suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict) and found.get("kind") == "Status":
            message = _QUERY.sub("", str(found.get("message") or f"HTTP {status}"))
            return ApiError(status, str(found.get("reason") or ""), message)
    text = content.decode(errors="replace").strip().split("\n", 1)[0][:300]
    return ApiError(status, "", text or f"HTTP {status}")

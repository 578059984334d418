"""The API server by plain HTTP and JSON: quick, and independent of the client library the operator uses."""

from __future__ import annotations

import base64
import json
import os
import ssl
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
MERGE, APPLY, JSON = "application/merge-patch+json", "application/apply-patch+yaml", "application/json"
FEEDS = "/apis/feedmill.dev/v1alpha1/namespaces/{ns}/exchangefeeds"
PIPELINES = "/apis/feedmill.dev/v1alpha1/namespaces/{ns}/feedpipelines"
_ROOTS = {
    "configmaps": "/api/v1", "secrets": "/api/v1", "services": "/api/v1", "serviceaccounts": "/api/v1",
    "pods": "/api/v1", "events": "/api/v1", "persistentvolumeclaims": "/api/v1", "resourcequotas": "/api/v1",
    "deployments": "/apis/apps/v1", "statefulsets": "/apis/apps/v1", "replicasets": "/apis/apps/v1",
    "jobs": "/apis/batch/v1", "cronjobs": "/apis/batch/v1",
    "poddisruptionbudgets": "/apis/policy/v1", "networkpolicies": "/apis/networking.k8s.io/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "podmonitors": "/apis/monitoring.coreos.com/v1", "prometheusrules": "/apis/monitoring.coreos.com/v1",
    "exchangefeeds": "/apis/feedmill.dev/v1alpha1", "feedpipelines": "/apis/feedmill.dev/v1alpha1",
    "exchangeaccounts": "/apis/feedmill.dev/v1alpha1", "feedbackups": "/apis/feedmill.dev/v1alpha1",
    "feedrestores": "/apis/feedmill.dev/v1alpha1",
}  # fmt: skip


class Refused(Exception):
    """The API server said no. ``body`` is its Status object."""

    def __init__(self, status: int, body: Any) -> None:
        self.status, self.body = status, body
        self.message = str(body.get("message", body)) if isinstance(body, dict) else str(body)
        super().__init__(f"{status}: {self.message}")


def path(plural: str, namespace: str | None, name: str = "", sub: str = "") -> str:
    """``/apis/apps/v1/namespaces/x/deployments/y``."""
    parts = [_ROOTS[plural], *(["namespaces", namespace] if namespace else []), plural]
    return "/".join([*parts, *(part for part in (name, sub) if part)])


class Api:
    """One connection a thread, kept open."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        self.server: str = cluster["server"]
        self.ca: bytes = base64.b64decode(cluster.get("certificate-authority-data", ""))
        self.token: str | None = user.get("token")
        self.tls: ssl.SSLContext | None = None
        if self.server.startswith("https"):
            self.tls = ssl.create_default_context(cadata=self.ca.decode())
            if "client-certificate-data" in user:
                self._client_certificate(user)
        self._local = threading.local()

    def _client_certificate(self, user: Object) -> None:
        assert self.tls is not None
        pem = base64.b64decode(user["client-certificate-data"]) + b"\n" + base64.b64decode(user["client-key-data"])
        handle, name = tempfile.mkstemp()
        try:
            os.write(handle, pem)
            self.tls.load_cert_chain(name)
        finally:
            os.close(handle)
            os.unlink(name)

    def _open(self, timeout: float = 60.0) -> HTTPConnection:
        url = urllib.parse.urlsplit(self.server)
        if self.tls is not None:
            return HTTPSConnection(url.hostname or "", url.port, context=self.tls, timeout=timeout)
        return HTTPConnection(url.hostname or "", url.port, timeout=timeout)

    def request(self, method: str, path: str, body: Any = None, kind: str = JSON, accept: str = JSON) -> Any:
        """The answer as JSON (or text); raises Refused."""
        headers = {"Accept": accept, "Content-Type": kind}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        connection: HTTPConnection | None = getattr(self._local, "connection", None)
        for fresh in (False, True):
            if connection is None or fresh:
                connection = self._local.connection = self._open()
            try:
                connection.request(method, path, data, headers)
                answer = connection.getresponse()
                content = answer.read()
                break
            except (HTTPException, OSError):
                connection.close()
                if fresh:
                    raise
        try:
            found: Any = json.loads(content)
        except ValueError:
            found = content.decode(errors="replace")
        if answer.status >= 400:
            raise Refused(answer.status, found)
        return found

    def get(self, plural: str, namespace: str | None, name: str) -> Object | None:
        """None when there is none."""
        try:
            found: Object = self.request("GET", path(plural, namespace, name))
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return found

    def need(self, plural: str, namespace: str | None, name: str) -> Object:
        found = self.get(plural, namespace, name)
        assert found is not None, f"there is no {plural}/{name} in {namespace}"
        return found

    def list(self, plural: str, namespace: str | None = None, labels: str = "") -> list[Object]:
        query = f"?labelSelector={urllib.parse.quote(labels)}" if labels else ""
        found: list[Object] = self.request("GET", path(plural, namespace) + query)["items"]
        return found

    def create(self, plural: str, body: Object, query: str = "") -> Object:
        """In the object's own namespace; Strict field validation unless ``query`` says otherwise."""
        where = path(plural, body["metadata"].get("namespace"))
        found: Object = self.request("POST", where + (query or "?fieldValidation=Strict"), body)
        return found

    def merge(self, plural: str, namespace: str | None, name: str, body: Object, sub: str = "") -> Object:
        found: Object = self.request("PATCH", path(plural, namespace, name, sub), body, MERGE)
        return found

    def edit(self, plural: str, namespace: str | None, name: str, change: Callable[[Object], object]) -> Object:
        """Read, ``change`` in place, PUT back; again when somebody was quicker."""
        for _ in range(20):
            found = self.need(plural, namespace, name)
            change(found)
            try:
                stored: Object = self.request("PUT", path(plural, namespace, name), found)
            except Refused as error:
                if error.status == 409:
                    continue
                raise
            return stored
        raise AssertionError(f"{plural}/{name} never stood still")

    def delete(self, plural: str, namespace: str | None, name: str, propagation: str = "Background") -> None:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        try:
            self.request("DELETE", path(plural, namespace, name), body)
        except Refused as error:
            if error.status != 404:
                raise

    def watch(self, plural: str, namespace: str | None, seconds: float, version: str = "") -> Iterator[Object]:
        """Events for at most so long."""
        query = f"?watch=1&timeoutSeconds={max(1, int(seconds))}&resourceVersion={version}"
        connection = self._open(seconds + 10)
        headers = {"Accept": JSON} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        with closing(connection):
            connection.request("GET", path(plural, namespace) + query, headers=headers)
            for line in connection.getresponse():
                yield json.loads(line)

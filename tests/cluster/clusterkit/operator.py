"""The operator as a process beside the cluster, under the identity it has in one."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from clusterkit.api import Object, Refused
from clusterkit.cluster import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, Cluster
from clusterkit.waiting import until

IMAGE = "registry.example.com/feedmill/services:1"
ADMIN_BINDING: Object = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "tests-operator-admin"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"kind": "ServiceAccount", "name": OPERATOR_ACCOUNT, "namespace": OPERATOR_NAMESPACE}],
}


def prepare(cluster: Cluster) -> None:
    """Namespace and account of the operator; it may do anything (the test of its rights has its own cluster role)."""
    make_account(cluster)
    cluster.apply(ADMIN_BINDING)


def make_account(cluster: Cluster) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}}
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": OPERATOR_ACCOUNT, "namespace": OPERATOR_NAMESPACE},
    }
    cluster.apply(namespace, account)


def token(cluster: Cluster) -> str:
    """Of the operator's ServiceAccount, for a day."""
    where = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/serviceaccounts/{OPERATOR_ACCOUNT}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}}
    found: str = cluster.api.request("POST", where, body)["status"]["token"]
    return found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass(slots=True)
class Operator:
    """One process of it."""

    cluster: Cluster
    folder: Path
    name: str = "op"
    server: str | None = None
    """URL of a proxy; None = the API server itself."""
    namespace: str | None = None
    """The only one it watches; None = all."""
    image: str = IMAGE
    arguments: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> Operator:
        """Returns at once; see ``ready``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kubeconfig = self.folder / f"{self.name}.kubeconfig"
        kubeconfig.write_text(json.dumps(self._kubeconfig()))
        kubeconfig.chmod(0o600)
        command = [sys.executable, "-m", "feedmill_operator", "run"]
        command += ["--operand-image", self.image, "--operator-namespace", OPERATOR_NAMESPACE]
        command += ["--health-host", "127.0.0.1", "--health-port", str(self.port)]
        if self.namespace is not None:
            command += ["--namespace", self.namespace]
        command += self.arguments
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FEEDMILL_")}
        environment |= {"KUBECONFIG": str(kubeconfig), "POD_NAME": self.name, "HOSTNAME": self.name}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.folder
            )
        return self

    def _kubeconfig(self) -> Object:
        api = self.cluster.api
        server: Object = {"server": self.server or api.server}
        if self.server is None:
            server["certificate-authority-data"] = base64.b64encode(api.ca).decode()
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{"name": "t", "cluster": server}],
            "users": [{"name": "t", "user": {"token": token(self.cluster)}}],
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
        }  # fmt: skip

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def get(self, path: str) -> tuple[int, str]:
        """(HTTP status, body) of one of its own pages; (0, "") where it does not answer, also within the time that a
        machine may stand still."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, HTTPException):
            return 0, ""

    def ready(self, timeout: float = 90.0) -> Operator:
        """Waits until it leads and has seen what there is."""

        def asked() -> bool:
            assert self.alive(), f"the operator ended with {self.process and self.process.poll()}:\n{self.tail()}"
            return self.get("/readyz")[0] == 200

        try:
            until(asked, timeout, what="the operator's /readyz")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.get('/readyz')}\n{self.tail()}") from None
        return self

    def leads(self) -> bool:
        """Whether the Lease names it."""
        found = self.cluster.api.list("leases", OPERATOR_NAMESPACE)
        return any(self.name in str(lease["spec"].get("holderIdentity", "")) for lease in found)

    def kill(self) -> None:
        """As a node does that loses power."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def stop(self, timeout: float = 30.0) -> int:
        """In order, within the time that the chart gives it; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
                raise AssertionError(f"the operator did not end within {timeout:g} s:\n{self.tail()}") from None
        return self.process.returncode

    def mark(self) -> int:
        """Where its log ends now: behind a whole line, since another may be half written."""
        return self.log.read_bytes().rfind(b"\n") + 1 if self.log.exists() else 0

    def lines(self, since: int = 0) -> Iterator[Object]:
        """Its log; what is no JSON comes as a line of level ``raw``."""
        with self.log.open("rb") as file:
            file.seek(since)
            for line in file:
                if not line.endswith(b"\n") and self.alive():
                    return  # It is being written.
                try:
                    found = json.loads(line)
                except ValueError:
                    found = None
                yield found if isinstance(found, dict) else {"level": "raw", "event": line.decode(errors="replace")}

    def errors(self, since: int = 0, allowed: Iterable[str] = ()) -> list[Object]:
        """Lines of level error or critical, and what was printed, not logged (tracebacks), unless they hold one of
        ``allowed``."""
        patterns = list(allowed)
        return [
            line
            for line in self.lines(since)
            if str(line.get("level", "")).lower() in ("error", "critical", "raw")
            and str(line.get("event", "")).strip()
            and not any(pattern in json.dumps(line) for pattern in patterns)
        ]

    def tail(self, size: int = 6000) -> str:
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def metrics(self) -> dict[str, float]:
        """Its /metrics: ``name{labels}`` -> value."""
        found: dict[str, float] = {}
        for line in self.get("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found


@contextmanager
def operating(cluster: Cluster, folder: Path, **options: Any) -> Iterator[Operator]:
    """A running operator that is ready."""
    operator = Operator(cluster, folder, **options)
    try:
        yield operator.start().ready()
    finally:
        if operator.alive():
            operator.stop()


def condition(found: Object | None, kind: str) -> Object:
    """A condition of an object's status; an empty one when there is none."""
    items = ((found or {}).get("status") or {}).get("conditions") or []
    return next((item for item in items if item["type"] == kind), {})


def wait_condition(
    cluster: Cluster, plural: str, namespace: str, name: str, kind: str, status: str = "True", *,
    reason: str = "", timeout: float = 60.0,
) -> Object:  # fmt: skip
    """The object once its condition says so for its present generation."""

    def said() -> Object | None:
        found = cluster.api.get(plural, namespace, name)
        if found is None:
            return None
        item = condition(found, kind)
        fits = item.get("status") == status and item.get("observedGeneration") == found["metadata"]["generation"]
        return found if fits and (not reason or item["reason"] == reason) else None

    try:
        return until(said, timeout, what=f"{plural}/{name} {kind}={status} {reason}")
    except AssertionError as error:
        found = cluster.api.get(plural, namespace, name)
        shown = ("get", "deployments,statefulsets,jobs,pods", "-n", namespace, "-o", "wide")
        around = cluster.kubectl(*shown, check=False).stdout
        conditions = "\n".join(
            f"{item['type']}={item['status']} {item['reason']}: {item['message']}"
            for item in ((found or {}).get("status") or {}).get("conditions", [])
        )
        pods = "\n".join(
            f"{pod['metadata']['name']}: {[(c['type'], c['status']) for c in pod['status'].get('conditions', [])]}"
            for pod in cluster.api.list("pods", namespace)
        )
        raise AssertionError(f"{error}\n{conditions}\n{around}\n{pods}") from None


def exists(cluster: Cluster, where: str) -> bool:
    """Whether the API server serves a path."""
    try:
        cluster.api.request("GET", where)
    except Refused as error:
        if error.status == 404:
            return False
        raise
    return True

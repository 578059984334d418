"""Simulated nodes for kind, which brings no kwok: pods on them become Ready, those of Jobs succeed, nothing runs."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPException

from clusterkit.api import Api, Object, Refused
from clusterkit.waiting import until

_SIZE = {"cpu": "32", "memory": "256Gi", "pods": "110"}
_HEARTBEAT = 5.0


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class FakeNodes:
    """What the kubelets of ``names`` would tell the API server."""

    def __init__(self, api: Api, names: list[str]) -> None:
        self.api, self.names = api, names
        self.over = threading.Event()
        self._addresses = itertools.count(1)

    def join(self) -> None:
        """Make the nodes and mark every other one unschedulable, so that pods come here."""
        for node in self.api.request("GET", "/api/v1/nodes")["items"]:
            where = f"/api/v1/nodes/{node['metadata']['name']}"
            self.api.request("PATCH", where, {"spec": {"unschedulable": True}}, "application/merge-patch+json")
        for name in self.names:
            labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
            self.api.request("POST", "/api/v1/nodes", node)
        self.beat()
        until(self._untainted, 90, what="the simulated nodes")

    def _untainted(self) -> bool:
        """The node controller lets pods onto them."""
        nodes = [self.api.request("GET", f"/api/v1/nodes/{name}") for name in self.names]
        return not any(node["spec"].get("taints") for node in nodes)

    def beat(self) -> None:
        """All are well: else the node controller evicts their pods."""
        for name in self.names:
            condition = {"type": "Ready", "status": "True", "reason": "Simulated", "lastHeartbeatTime": _now()}
            status = {"capacity": _SIZE, "allocatable": _SIZE, "conditions": [condition]}
            where = f"/api/v1/nodes/{name}/status"
            self.api.request("PATCH", where, {"status": status}, "application/merge-patch+json")

    def keep_alive(self) -> None:
        while not self.over.wait(_HEARTBEAT):
            try:
                self.beat()
            except (OSError, HTTPException, Refused):
                continue

    def keep_pods(self) -> None:
        while not self.over.is_set():
            try:
                for event in self.api.watch("pods", None, 300):
                    if self.over.is_set():
                        return
                    # A refused watch answers with a Status, which has no type.
                    if event.get("type") in ("ADDED", "MODIFIED"):
                        self._pod(event["object"])
            except (OSError, HTTPException, ValueError, Refused):
                time.sleep(0.2)

    def _pod(self, pod: Object) -> None:
        if pod["spec"].get("nodeName") not in self.names:
            return
        meta = pod["metadata"]
        where = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        try:
            if "deletionTimestamp" in meta:
                options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
                self.api.request("DELETE", where, options)
            elif pod["status"].get("phase") == "Pending":
                body = {"status": self._status(pod)}
                self.api.request("PATCH", f"{where}/status", body, "application/merge-patch+json")
        except Refused as error:
            if error.status not in (404, 409):
                raise

    def _status(self, pod: Object) -> Object:
        job = any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", []))
        ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": _now(), "finishedAt": _now()}}
        state = ended if job else {"running": {"startedAt": _now()}}
        ready = "False" if job else "True"
        number = next(self._addresses)
        address = f"10.63.{number // 250}.{number % 250 + 1}"
        return {
            "phase": "Succeeded" if job else "Running",
            "podIP": address, "podIPs": [{"ip": address}], "hostIP": "127.0.0.1", "startTime": _now(),
            "conditions": [
                {"type": kind, "status": "True" if kind in ("Initialized", "PodScheduled") else ready,
                 "lastTransitionTime": _now()}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": [
                {"name": item["name"], "image": item["image"], "imageID": "", "containerID": "fake://x",
                 "ready": not job, "started": not job, "restartCount": 0, "state": state}
                for item in pod["spec"]["containers"]
            ],
        }  # fmt: skip


@contextmanager
def fake_nodes(api: Api, count: int) -> Iterator[None]:
    """``count`` simulated nodes while the block runs."""
    nodes = FakeNodes(api, [f"fake-{number}" for number in range(count)])
    nodes.join()
    threads = [threading.Thread(target=work, daemon=True) for work in (nodes.keep_alive, nodes.keep_pods)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        nodes.over.set()

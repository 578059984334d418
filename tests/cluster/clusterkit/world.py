"""A namespace with a pipeline and feeds in it, as a user makes them, and what the operator made of them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from clusterkit import samples
from clusterkit.api import Object, Refused
from clusterkit.cluster import Cluster
from clusterkit.operator import condition, wait_condition
from clusterkit.waiting import until

MADE = (
    "configmaps", "secrets", "services", "serviceaccounts", "deployments", "statefulsets", "jobs", "cronjobs",
    "poddisruptionbudgets", "networkpolicies", "podmonitors", "prometheusrules",
)  # fmt: skip
MANAGED = "app.kubernetes.io/managed-by=feedmill-operator"
SCHEDULED = ("maintenance", "backup-run")


def essence(found: Object) -> Object:
    """An object without what the server writes into it (and without its kind, which items of lists lack)."""
    meta = {
        name: value
        for name, value in found["metadata"].items()
        if name in ("name", "namespace", "labels", "ownerReferences")
    }
    notes = {
        name: value for name, value in found["metadata"].get("annotations", {}).items() if "kubernetes.io" not in name
    }
    rest = {name: value for name, value in found.items() if name not in ("metadata", "status", "apiVersion", "kind")}
    return {**rest, "metadata": {**meta, "annotations": notes}}


@dataclass(slots=True)
class World:
    """One namespace."""

    cluster: Cluster
    namespace: str

    # --- what users do ------------------------------------------------------------------------------------------

    def secrets(self) -> None:
        for secret in samples.server_secrets(self.namespace):
            self.cluster.api.create("secrets", secret)

    def pipeline(self, name: str = "main", **spec: Any) -> Object:
        return self.cluster.api.create("feedpipelines", samples.pipeline(name, self.namespace, **spec))

    def feed(self, name: str = "spot", **spec: Any) -> Object:
        return self.cluster.api.create("exchangefeeds", samples.feed(name, self.namespace, **spec))

    def account(self, name: str = "fund", **spec: Any) -> Object:
        return self.cluster.api.create("exchangeaccounts", samples.account(name, self.namespace, **spec))

    def secret(self, name: str, **values: str) -> Object:
        metadata = {"name": name, "namespace": self.namespace}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}
        return self.cluster.api.create("secrets", secret)

    def patch(self, what: str, body: Object) -> Object:
        """``what``: ``xf/spot`` or ``fpl/main``."""
        plural, name = self._of(what)
        return self.cluster.api.merge(plural, self.namespace, name, body)

    def annotate(self, what: str, **annotations: str | None) -> Object:
        """``annotate("xf/spot", pause="true")``; None takes it away."""
        found = {f"feedmill.dev/{name}": value for name, value in annotations.items()}
        return self.patch(what, {"metadata": {"annotations": found}})

    def delete(self, what: str) -> None:
        plural, name = self._of(what)
        self.cluster.api.delete(plural, self.namespace, name)

    # --- what is there ------------------------------------------------------------------------------------------

    @staticmethod
    def _of(what: str) -> tuple[str, str]:
        short, _, name = what.partition("/")
        return {"xf": "exchangefeeds", "fpl": "feedpipelines", "xa": "exchangeaccounts", "fbk": "feedbackups",
                "frs": "feedrestores"}[short], name  # fmt: skip

    def get(self, what: str) -> Object | None:
        plural, name = self._of(what)
        return self.cluster.api.get(plural, self.namespace, name)

    def status(self, what: str) -> Object:
        return (self.get(what) or {}).get("status") or {}

    def condition(self, what: str, kind: str) -> Object:
        return condition(self.get(what), kind)

    def wait(self, what: str, kind: str = "Ready", status: str = "True", **more: Any) -> Object:
        """Until its condition says so for the spec as it is now; gives the condition."""
        plural, name = self._of(what)
        return condition(wait_condition(self.cluster, plural, self.namespace, name, kind, status, **more), kind)

    def ready(self, *what: str, timeout: float = 90.0) -> None:
        for each in what:
            self.wait(each, timeout=timeout)

    def one(self, plural: str, name: str) -> Object | None:
        return self.cluster.api.get(plural, self.namespace, name)

    def made(self, owner: str | None = None) -> dict[tuple[str, str], Object]:
        """(plural, name) -> object, of all that the operator made here (of one owner: ``xf/spot``)."""
        uid = (self.get(owner) or {})["metadata"]["uid"] if owner else None
        found: dict[tuple[str, str], Object] = {}
        for plural in MADE:
            try:
                items = self.cluster.api.list(plural, self.namespace, MANAGED)
            except Refused as error:
                if error.status == 404:
                    continue
                raise
            for item in items:
                references = item["metadata"].get("ownerReferences", [])
                if any(reference["kind"] == "CronJob" for reference in references):
                    continue  # made by the CronJob's controller, when the clock says so
                if uid is None or uid in [reference["uid"] for reference in references]:
                    found[plural, item["metadata"]["name"]] = item
        return found

    def settled(
        self, owner: str | None = None, quiet: float = 2.0, timeout: float = 90.0
    ) -> dict[tuple[str, str], Object]:
        """``made``, once it has not changed for ``quiet`` seconds."""
        last, since = "", time.monotonic()

        def still() -> dict[tuple[str, str], Object] | None:
            nonlocal last, since
            now = self.made(owner)
            text = json.dumps([essence(item) for item in now.values()], sort_keys=True)
            if text != last:
                last, since = text, time.monotonic()
            return now if now and time.monotonic() - since >= quiet else None

        return until(still, timeout, what="what the operator made to stand still")

    def events(self, what: str) -> list[Object]:
        """Of one of ours, in the order of their making."""
        uid = (self.get(what) or {})["metadata"]["uid"]
        found = [e for e in self.cluster.api.list("events", self.namespace) if e["involvedObject"].get("uid") == uid]
        return sorted(found, key=lambda event: event["metadata"]["creationTimestamp"])

    def pods(self, component: str = "", *, scheduled: bool = False) -> list[Object]:
        """Those that are to stay; of a CronJob, whose pods come with the clock, if it is named or ``scheduled``."""
        labels = f"{MANAGED},app.kubernetes.io/component={component}" if component else MANAGED
        return [
            pod
            for pod in self.cluster.api.list("pods", self.namespace, labels)
            if "deletionTimestamp" not in pod["metadata"]
            and (component or scheduled or pod["metadata"]["labels"]["app.kubernetes.io/component"] not in SCHEDULED)
        ]

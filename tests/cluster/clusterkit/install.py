"""The chart, installed with the real Helm into a real cluster."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from clusterkit.api import Object
from clusterkit.cluster import OPERATOR_NAMESPACE, Cluster
from clusterkit.helms import programs
from clusterkit.images import Images
from clusterkit.tool import ROOT
from clusterkit.waiting import until

CHART = ROOT / "helm" / "feedmill"
RELEASE = "feedmill"


def helm_program() -> Path:
    """Helm 4; ``FEEDMILL_HELM`` names another. Raises NoCluster."""
    given = os.environ.get("FEEDMILL_HELM")
    return Path(given) if given else programs(4).helm


def helm(*arguments: str, kubeconfig: Path | None = None, timeout: float = 180.0) -> str:
    """Raises AssertionError with what Helm said."""
    command = [str(helm_program()), *arguments]
    if kubeconfig is not None:
        command += ["--kubeconfig", str(kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr or done.stdout}"
    return done.stdout


def rendered(*options: str, namespace: str = OPERATOR_NAMESPACE) -> list[Object]:
    """The chart's objects."""
    text = helm("template", RELEASE, str(CHART), "--namespace", namespace, *options)
    return [document for document in yaml.safe_load_all(text) if document]


@dataclass(slots=True)
class Installed:
    """A release."""

    cluster: Cluster
    namespace: str
    objects: list[Object] = field(default_factory=list)

    def ready(self) -> bool:
        """Whether all its Deployments are available."""
        found = self.cluster.api.list("deployments", self.namespace)
        return bool(found) and all(
            item["status"].get("availableReplicas", 0) == item["spec"]["replicas"]
            and item["status"].get("observedGeneration") == item["metadata"]["generation"]
            for item in found
        )

    def uninstall(self) -> None:
        done = helm("get", "manifest", RELEASE, "-n", self.namespace, kubeconfig=self.cluster.kubeconfig)
        self.objects = [document for document in yaml.safe_load_all(done) if document]
        helm("uninstall", RELEASE, "-n", self.namespace, "--wait", kubeconfig=self.cluster.kubeconfig)

    def leftovers(self) -> list[str]:
        """What of the release is still there after ``uninstall``, its CRDs apart."""
        found = []
        for item in self.objects:
            if item["kind"] == "CustomResourceDefinition":
                continue
            name = f"{item['kind']}/{item['metadata']['name']}"
            namespace = item["metadata"].get("namespace", self.namespace)
            done = self.cluster.kubectl("get", name, "-n", namespace, "--ignore-not-found", "-o", "name")
            if done.stdout.strip():
                found.append(name)
        return found


@contextmanager
def install(cluster: Cluster, images: Images, values: Sequence[str] = ()) -> Iterator[Installed]:
    """``values``: ``operator.replicas=1`` and so on."""
    (operator, operator_tag), (services, services_tag) = (
        name.rsplit(":", 1) for name in (images.operator, images.services[0])
    )
    named = [f"image.repository={operator}", f"image.tag={operator_tag}"]
    named += [f"operandImage.repository={services}", f"operandImage.tag={services_tag}"]
    options = [part for value in (*named, *values) for part in ("--set", value)]
    helm(
        "install", RELEASE, str(CHART), "--namespace", OPERATOR_NAMESPACE, "--create-namespace", *options,
        kubeconfig=cluster.kubeconfig,
    )  # fmt: skip
    found = Installed(cluster, OPERATOR_NAMESPACE)
    try:
        until(found.ready, 180, what="the operator's Deployment")
    except AssertionError as error:
        pods = cluster.kubectl("get", "pods", "-n", OPERATOR_NAMESPACE, "-o", "wide", check=False).stdout
        logs = cluster.kubectl(
            "logs", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=feedmill", "--tail=20", check=False
        )
        events = cluster.kubectl("get", "events", "-n", OPERATOR_NAMESPACE, check=False).stdout
        raise AssertionError(f"{error}\n{pods}\n{logs.stdout}{logs.stderr}\n{events[-3000:]}") from None
    yield found

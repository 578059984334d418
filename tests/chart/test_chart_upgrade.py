"""Install, upgrade and uninstall on a real API server: CRDs and custom resources stay."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from clusterkit.tool import ROOT, NoCluster, find, start
from clusterkit.waiting import until

if TYPE_CHECKING:
    from conftest import Helm

pytestmark = pytest.mark.slow
SYSTEM = "feedmill-system"
CHART = ROOT / "helm" / "feedmill"
VALUES = {
    "pipeline": {"namespace": "feeds", "spec": {"redis": {"managed": {}}, "postgres": {"managed": {}}}},
    "feeds": {
        "btc": {
            "exchange": {"name": "binance", "market": "Spot"}, "instruments": {"symbols": ["BTC-USDT"]},
            "channels": [{"name": "Trades"}],
        }
    },
}  # fmt: skip


@pytest.fixture
def kubectl(helm: Helm, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Of an API server of this test's own, which ``helm`` is pointed to."""
    try:
        tool = find()
    except NoCluster as error:
        pytest.skip(str(error))
    if tool.folder is None:
        pytest.skip("an API server without CRDs comes from the cluster tool only, see docs/testing.md")
    state = tmp_path / "state"
    up = [str(tool.folder / "up"), "--api-only", "--state", str(state)]
    helm.kubeconfig = Path(start(up, state, tool.folder / "down").splitlines()[-1])

    def run(*arguments: str) -> str:
        command = [str(helm.programs.kubectl), "--kubeconfig", str(helm.kubeconfig), *arguments]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert asked.returncode == 0, asked.stderr
        return asked.stdout

    try:
        yield run
    finally:
        subprocess.run([tool.folder / "down", "--state", state], check=True, capture_output=True, timeout=120)


def items(kubectl: Callable[..., str], kinds: str) -> dict[str, Any]:
    """kind/name -> object, of all namespaces."""
    found = json.loads(kubectl("get", kinds, "-A", "-o", "json"))["items"]
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in found}


def test_install_upgrade_uninstall(
    helm: Helm, package: Callable[[str], Path], kubectl: Callable[..., str], tmp_path: Path
) -> None:
    values = tmp_path / "values.json"
    values.write_text(json.dumps(VALUES))
    release = ["feedmill", "--namespace", SYSTEM]
    before = package("0.0.9")

    refused = helm.run("install", "feedmill", before, "-n", SYSTEM, "--create-namespace", "-f", values)
    assert refused.returncode != 0
    assert "need the CRDs" in refused.stderr

    assert "kubectl apply -f examples/kubernetes/managed-pipeline.yaml" in helm(
        "install", "feedmill", before, "-n", SYSTEM, "--create-namespace"
    )
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=90s")
    # Established is not yet known to everybody who asks what kinds there are.
    known = ("api-resources", "--api-group=feedmill.dev", "-o", "name")
    until(lambda: len(kubectl(*known).split()) == 5, what="our kinds to be known")
    for name in ("namespace", "managed-pipeline", "feeds"):
        kubectl("apply", "-f", str(ROOT / f"examples/kubernetes/{name}.yaml"))
    mine = items(kubectl, "fpl,xf")
    crds = items(kubectl, "crd")
    assert len(mine) == 4
    assert len(crds) == 5

    # The names of the release's own first objects must not be those of the user.
    own = VALUES | {"pipeline": {**VALUES["pipeline"], "name": "second"}}
    values.write_text(json.dumps(own))
    notes = helm("upgrade", "feedmill", package("0.2.0"), "-n", SYSTEM, "-f", values)
    assert "kubectl wait --for=condition=Ready fpl,xf --all -n feeds" in notes
    after, crds_after = items(kubectl, "fpl,xf"), items(kubectl, "crd")
    assert set(after) == set(mine) | {"FeedPipeline/second", "ExchangeFeed/btc"}
    for name, item in mine.items():
        assert after[name]["metadata"]["uid"] == item["metadata"]["uid"]
        assert after[name]["metadata"]["generation"] == item["metadata"]["generation"]
    for name, item in crds.items():
        assert crds_after[name]["metadata"]["uid"] == item["metadata"]["uid"]
        assert crds_after[name]["metadata"]["labels"]["helm.sh/chart"] == "feedmill-0.2.0"
    made = [item for item in yaml.safe_load_all(helm("get", "manifest", *release)) if item]
    assert len(made) > 10

    helm("uninstall", *release)
    assert set(items(kubectl, "crd")) == set(crds)
    assert set(items(kubectl, "fpl,xf")) == set(after)
    left = []
    for item in made:
        if item["kind"] in ("CustomResourceDefinition", "FeedPipeline", "ExchangeFeed"):
            continue
        name, namespace = f"{item['kind']}/{item['metadata']['name']}", item["metadata"].get("namespace", SYSTEM)
        left += kubectl("get", name, "-n", namespace, "--ignore-not-found", "-o", "name").split()
    assert left == []


def test_restricted_pod_security_takes_the_pods(helm: Helm, kubectl: Callable[..., str]) -> None:
    """Judged by the API server's own admission."""
    kubectl("create", "namespace", SYSTEM)
    kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
    objects = helm.template()
    deployment = next(item for item in objects if item["kind"] == "Deployment")
    kubectl("create", "serviceaccount", "feedmill-operator", "-n", SYSTEM)
    for number, spec in enumerate(
        [deployment["spec"]["template"]["spec"], next(item for item in objects if item["kind"] == "Pod")["spec"]]
    ):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number}"}, "spec": spec}
        path = helm.home / "pod.json"
        path.write_text(json.dumps(pod))
        kubectl("create", "-n", SYSTEM, "-f", str(path))
    assert set(items(kubectl, "pods")) == {"Pod/p0", "Pod/p1"}

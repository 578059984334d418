"""What the chart makes of values, and which values it refuses."""

from __future__ import annotations

import copy
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from clusterkit.tool import ROOT

if TYPE_CHECKING:
    from conftest import Helm

CHART, CRDS = ROOT / "helm" / "feedmill", ROOT / "crds"
FEED = {
    "exchange": {"name": "binance", "market": "Spot"},
    "instruments": {"symbols": ["BTC-USDT"]},
    "channels": [{"name": "Trades"}],
}
ACCOUNT = {"exchange": {"name": "binance", "market": "Spot"}, "credentialsSecretRef": {"name": "fund-key"}}
PIPELINE = {"spec": {"redis": {"managed": {}}, "postgres": {"managed": {}}}}
KNOWN = ("--api-versions", "feedmill.dev/v1alpha1")
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "namespaced": {"watch": {"namespaces": ["feeds", "more"]}},
    "no CRDs": {"crds": {"install": False}},
    "single": {"operator": {"replicas": 1, "leaderElection": {"enabled": False}}},
    "first": {"pipeline": PIPELINE, "feeds": {"btc": FEED}, "accounts": {"fund": ACCOUNT}},
    "everything": {
        "image": {"digest": "sha256:" + "a" * 64},
        "imagePullSecrets": [{"name": "login"}],
        "commonLabels": {"team": "data"},
        "serviceAccount": {"annotations": {"a": "b"}},
        "operator": {
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy"}], "podLabels": {"a": "b"},
            "podAnnotations": {"a": "b"}, "priorityClassName": "high", "nodeSelector": {"a": "b"},
            "tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": {}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
            ],
            "otlpEndpoint": "http://collector:4318",
        },
        "networkPolicy": {"ingressFrom": [{"namespaceSelector": {}}], "extraEgress": [{"to": [{"podSelector": {}}]}]},
        "metrics": {"service": {"annotations": {"a": "b"}}, "podMonitor": {"enabled": True, "labels": {"a": "b"}},
                    "prometheusRule": {"enabled": True, "labels": {"a": "b"}},
                    "dashboards": {"enabled": True, "namespace": "grafana", "annotations": {"folder": "Feedmill"}}},
    },
}  # fmt: skip
WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"operator": {"replicaz": 1}}, ("operator", "replicaz")),
    ({"operator": {"replicas": "two"}}, ("replicas", "integer")),
    ({"operator": {"logLevel": "loud"}}, ("logLevel", "debug")),
    ({"operator": {"resync": "often"}}, ("resync",)),
    ({"watch": {"namespaces": ["Not_A_Name"]}}, ("watch", "namespaces")),
    ({"operandImage": {"repository": ""}}, ("operandImage", "repository")),
    ({"operator": {"leaderElection": {"enabled": False}}}, ("operator.replicas", "leaderElection")),
    ({"serviceAccount": {"create": False}}, ("serviceAccount.name",)),
    ({"feeds": {"btc": {"exchange": {}}}}, ("instruments",)),
    ({"feeds": {"btc": FEED}}, ("feeds.btc", "pipelineRef")),
    ({"accounts": {"fund": {"exchange": {}}}}, ("credentialsSecretRef",)),
    ({"accounts": {"fund": ACCOUNT}}, ("accounts.fund", "pipelineRef")),
    ({"pipeline": PIPELINE}, ("CRDs", "helm upgrade")),
    ({"pipeline": PIPELINE, "watch": {"namespaces": ["feeds"]}}, ("pipeline.namespace", "watch.namespaces")),
]


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Specs."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item["spec"]
        elif "template" in item.get("spec", {}):
            yield item["spec"]["template"]["spec"]


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["kind"] in kinds]


def test_lint(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)


@pytest.mark.parametrize("name", CASES)
def test_whatever_the_values(helm: Helm, name: str) -> None:
    objects = helm.template(CASES[name], *KNOWN)
    assert of_kind(objects, "Deployment")
    found = list(pods(objects))
    assert len(found) == 2
    for pod in found:
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert container["resources"]["limits"]["memory"]
        assert not any("hostPath" in volume for volume in pod.get("volumes", []))
    for item in objects:
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "feedmill"
    for role in of_kind(objects, "Role", "ClusterRole"):
        for rule in role["rules"]:
            for words in rule.values():
                assert not any("*" in word for word in words), f"a star in {role['metadata']['name']}"
    names = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", CASES)
def test_objects_are_what_kubernetes_takes(helm: Helm, name: str, tmp_path: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate to check schemas")
    for item in helm.template(CASES[name], *KNOWN):
        if not item["apiVersion"].startswith(("feedmill.dev", "monitoring.coreos.com")):
            validator.validate(copy.deepcopy(item), "1.33", strict=True)


@pytest.mark.parametrize(("values", "words"), WRONG, ids=lambda part: part if isinstance(part, str) else None)
def test_wrong_values_are_refused_by_name(helm: Helm, values: dict[str, Any], words: tuple[str, ...]) -> None:
    options = () if "pipeline" in values and "watch" not in values else KNOWN
    message = helm.refused(values, *options)
    assert all(word in message for word in words), message


def test_names_and_arguments(helm: Helm) -> None:
    objects = helm.template()
    deployment = of_kind(objects, "Deployment")[0]
    assert deployment["metadata"]["name"] == "feedmill-operator"
    assert deployment["spec"]["replicas"] == 2
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "feedmill/operator:0.1.0"
    assert "--operand-image=feedmill/services:0.1.0" in container["args"]
    assert "--leader-elect" in container["args"]
    digest = helm.template(CASES["everything"], *KNOWN)
    image = of_kind(digest, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "feedmill/operator@sha256:" + "a" * 64


def test_the_operator_takes_its_arguments(helm: Helm) -> None:
    """Every option that the chart can give is one of the program's."""
    done = subprocess.run(
        [sys.executable, "-m", "feedmill_operator", "run", "--help"],
        capture_output=True, text=True, timeout=60, check=True, env={"COLUMNS": "300", "PATH": "", "TERM": "dumb"},
    )  # fmt: skip
    for case in CASES.values():
        for argument in of_kind(helm.template(case, *KNOWN), "Deployment")[0]["spec"]["template"]["spec"]["containers"][
            0
        ]["args"][1:]:
            assert argument.partition("=")[0] in done.stdout


def test_alerts_on_the_operator_choose_its_pods(helm: Helm) -> None:
    objects = helm.template({"fullnameOverride": "fm", "metrics": {"prometheusRule": {"enabled": True}}})
    (rule,) = of_kind(objects, "PrometheusRule")
    (group,) = rule["spec"]["groups"]
    chosen = 'namespace="feedmill-system", pod=~"fm-operator-[^-]+-[^-]+"'
    written = (CHART / "files" / "alerts.yaml").read_text()
    assert group["rules"] == yaml.safe_load(written.replace("PODS", chosen))
    assert len(group["rules"]) >= 3
    assert all(chosen in item["expr"] for item in group["rules"])
    assert not of_kind(helm.template(), "PrometheusRule")


def test_dashboards_are_shipped_as_they_were_made(helm: Helm) -> None:
    values = {"fullnameOverride": "fm", "metrics": {"dashboards": {"enabled": True, "annotations": {"folder": "F"}}}}
    found = {item["metadata"]["name"]: item for item in of_kind(helm.template(values), "ConfigMap")}
    written = {path.stem: path.read_text() for path in (CHART / "files" / "dashboards").glob("*.json")}
    assert len(written) == 6
    assert found.keys() == {f"fm-dashboard-{name}" for name in written}
    for name, text in written.items():
        made = found[f"fm-dashboard-{name}"]
        assert made["data"] == {f"feedmill-{name}.json": text}
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert made["metadata"]["annotations"] == {"folder": "F"}
        assert len(text) < 262_144, "kubectl apply keeps a copy in an annotation of at most this"
    assert not of_kind(helm.template(), "ConfigMap")


def test_namespaced_has_no_rights_beyond(helm: Helm) -> None:
    objects = helm.template(CASES["namespaced"])
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    assert {item["metadata"]["namespace"] for item in of_kind(objects, "Role")} == {"feeds", "more", "feedmill-system"}
    args = of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [word for word in args if word.startswith("--namespace=")] == ["--namespace=feeds", "--namespace=more"]


def test_crds_are_those_of_the_models(helm: Helm) -> None:
    made = {item["metadata"]["name"]: item for item in of_kind(helm.template(), "CustomResourceDefinition")}
    committed = [yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml"))]
    assert len(committed) == 5
    assert set(made) == {item["metadata"]["name"] for item in committed}
    for item in committed:
        found = made[item["metadata"]["name"]]
        assert found["spec"] == item["spec"]
        assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    dropped = of_kind(helm.template({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert len(dropped) == 5
    assert not any("annotations" in item["metadata"] for item in dropped)
    assert not of_kind(helm.template({"crds": {"install": False}}), "CustomResourceDefinition")


def test_first_pipeline_feeds_and_accounts(helm: Helm) -> None:
    objects = helm.template(CASES["first"], *KNOWN)
    (pipeline,), (feed,) = of_kind(objects, "FeedPipeline"), of_kind(objects, "ExchangeFeed")
    assert pipeline["spec"] == PIPELINE["spec"]
    assert feed["spec"] == FEED | {"pipelineRef": {"name": "main"}}
    (account,) = of_kind(objects, "ExchangeAccount")
    assert account["spec"] == ACCOUNT | {"pipelineRef": {"name": "main"}}
    for item in (pipeline, feed, account):
        assert item["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_package(helm: Helm, package: Callable[[str], Path]) -> None:
    archive = package("0.1.0")
    with tarfile.open(archive) as found:
        names = {Path(name).name for name in found.getnames()}
    assert {"Chart.yaml", "values.schema.json", "NOTES.txt", "exchangefeeds.yaml"} <= names
    assert of_kind([item for item in yaml.safe_load_all(helm("template", "feedmill", archive)) if item], "Deployment")


def test_annotations_name_what_is_there() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    annotations = chart["annotations"]
    assert annotations["artifacthub.io/operatorCapabilities"] == "Deep Insights"
    listed = {(item["name"], item["kind"]) for item in yaml.safe_load(annotations["artifacthub.io/crds"])}
    crds = [yaml.safe_load(path.read_text()) for path in CRDS.glob("*.yaml")]
    assert listed == {(item["metadata"]["name"], item["spec"]["names"]["kind"]) for item in crds}
    examples = {item["kind"] for item in yaml.safe_load(annotations["artifacthub.io/crdsExamples"])}
    assert examples == {"FeedPipeline", "ExchangeFeed"}
    for image in yaml.safe_load(annotations["artifacthub.io/images"]):
        assert image["image"] == f"feedmill/{image['name']}:{chart['appVersion']}"


def test_every_value_is_documented() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "chart-reference", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "`operator.leaderElection.leaseDuration`" in (ROOT / "docs/reference/chart.md").read_text()


def test_skaffold_names_files_that_are_there() -> None:
    found = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    assert found["apiVersion"].startswith("skaffold/v4beta")
    assert {item["image"] for item in found["build"]["artifacts"]} == {"feedmill/operator", "feedmill/services"}
    for artifact in found["build"]["artifacts"]:
        assert (ROOT / artifact["docker"]["dockerfile"]).is_file()
    (release,) = found["deploy"]["helm"]["releases"]
    assert (ROOT / release["chartPath"] / "Chart.yaml").is_file()

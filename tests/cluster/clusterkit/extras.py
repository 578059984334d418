"""What clusters have that the cluster tool's simulated nodes do not bring: volumes, and the kinds of monitoring."""

from __future__ import annotations

import shutil
from pathlib import Path

from clusterkit.api import Object
from clusterkit.cluster import Cluster

STORAGE_CLASS: Object = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kubernetes.io/host-path",
    "allowVolumeExpansion": True,
}


def monitoring_crds() -> list[Object]:
    """PodMonitor and PrometheusRule of the Prometheus operator, with open schemas."""
    return [_crd("PodMonitor", "podmonitors"), _crd("PrometheusRule", "prometheusrules")]


def _crd(kind: str, plural: str) -> Object:
    group = "monitoring.coreos.com"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    }


def remove_volumes(cluster: Cluster) -> None:
    """The directories that the host path provisioner made on this machine for the cluster's volumes."""
    if cluster.mode == "node":
        return
    for volume in cluster.api.request("GET", "/api/v1/persistentvolumes")["items"]:
        where = Path(str(volume["spec"].get("hostPath", {}).get("path", "")))
        if where.parent == Path("/tmp/hostpath_pv"):
            shutil.rmtree(where, ignore_errors=True)

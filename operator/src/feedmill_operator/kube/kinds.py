"""The kinds the operator reads and writes."""

from __future__ import annotations

from feedmill_operator.kube.api import Kind

_OURS = "feedmill.dev/v1alpha1"
FEED = Kind(_OURS, "ExchangeFeed", "exchangefeeds")
PIPELINE = Kind(_OURS, "FeedPipeline", "feedpipelines")
ACCOUNT = Kind(_OURS, "ExchangeAccount", "exchangeaccounts")
BACKUP = Kind(_OURS, "FeedBackup", "feedbackups")
RESTORE = Kind(_OURS, "FeedRestore", "feedrestores")

CUSTOM = (FEED, PIPELINE, ACCOUNT, BACKUP, RESTORE)
"""What users write."""
RUNS = (BACKUP, RESTORE)
"""Of these, what is one run each."""

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
PVC = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
JOB = Kind("batch/v1", "Job", "jobs")
CRON_JOB = Kind("batch/v1", "CronJob", "cronjobs")
PDB = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
POD_MONITOR = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors")
PROMETHEUS_RULE = Kind("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules")

MADE = (
    CONFIG_MAP, SECRET, SERVICE, SERVICE_ACCOUNT, DEPLOYMENT, STATEFUL_SET, JOB, CRON_JOB, PDB, NETWORK_POLICY,
    POD_MONITOR, PROMETHEUS_RULE,
)  # fmt: skip
"""What the operator makes, watches, undoes edits of and prunes."""

OPTIONAL = (POD_MONITOR, PROMETHEUS_RULE)
"""Of these, what only some clusters know."""

BY_NAME = {(kind.api_version, kind.kind): kind for kind in MADE}


def kind_of(manifest: dict[str, object]) -> Kind:
    """Kind of one of our manifests; raises KeyError for any other."""
    return BY_NAME[str(manifest["apiVersion"]), str(manifest["kind"])]

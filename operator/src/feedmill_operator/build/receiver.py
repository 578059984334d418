"""Receivers: one Deployment a shard; its replicas capture the same and make up for each other."""

from __future__ import annotations

from feedmill_operator import names
from feedmill_operator.build import pods, secrets
from feedmill_operator.build.deployment import deployment
from feedmill_operator.build.disruption import budgets
from feedmill_operator.build.inputs import FeedInputs, Manifest
from feedmill_operator.build.objects import Place

DEFAULTS = {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}}
POD_NAME = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}


def receiver(place: Place, inputs: FeedInputs) -> list[Manifest]:
    """Of the shard of ``place``."""
    assert place.shard is not None
    wanted = inputs.feed.spec.receiver
    keys = [*secrets.server_keys(inputs.pipeline, (names.REDIS,)), *secrets.exchange_keys(inputs.feed)]
    named = ["--feed", "/".join(inputs.feed.key), "--shard", str(place.shard), "--replica", "$(POD_NAME)"]
    named += ["--spill-dir", names.SPILL_DIR]
    process = pods.Process(
        component=names.RECEIVER,
        image=inputs.image,
        args=pods.service_args("receiver", named, keys),
        config_map=names.feed_config(place.feed),
        keys=keys,
        env=[POD_NAME, *secrets.url_files(inputs.pipeline, (names.REDIS,))],
        defaults=DEFAULTS,
        resources=wanted.resources,
        probes=pods.health_probes(),
        ports=[pods.health_port()],
        volumes=[{"name": "spill", "emptyDir": {"sizeLimit": str(wanted.spill.size)}}],
        mounts=[{"name": "spill", "mountPath": names.SPILL_DIR}],
    )
    name = names.receiver(place.feed, place.shard)
    template = pods.pod(place, process, template=wanted.pod_template, restart=inputs.restart)
    made = deployment(place, name, names.RECEIVER, wanted.replicas, template)
    return [made, *budgets(place, name, names.RECEIVER, wanted.replicas)]

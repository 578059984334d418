"""Distributors: one Deployment a shard; of its replicas one works, by lease, the others stand by."""

from __future__ import annotations

from feedmill_operator import names
from feedmill_operator.build import pods, secrets
from feedmill_operator.build.deployment import deployment
from feedmill_operator.build.disruption import budgets
from feedmill_operator.build.inputs import FeedInputs, Manifest
from feedmill_operator.build.objects import Place

DEFAULTS = {"requests": {"cpu": "100m", "memory": "160Mi"}, "limits": {"memory": "512Mi"}}


def distributor(place: Place, inputs: FeedInputs) -> list[Manifest]:
    """Of the shard of ``place``."""
    assert place.shard is not None
    wanted = inputs.feed.spec.distributor
    keys = secrets.server_keys(inputs.pipeline, (names.REDIS,))
    process = pods.Process(
        component=names.DISTRIBUTOR,
        image=inputs.image,
        args=pods.service_args("distributor", ["--feed", "/".join(inputs.feed.key), "--shard", str(place.shard)], keys),
        config_map=names.feed_config(place.feed),
        keys=keys,
        env=secrets.url_files(inputs.pipeline, (names.REDIS,)),
        defaults=DEFAULTS,
        resources=wanted.resources,
        probes=pods.health_probes(),
        ports=[pods.health_port()],
    )
    name = names.distributor(place.feed, place.shard)
    template = pods.pod(place, process, template=wanted.pod_template, restart=inputs.restart)
    made = deployment(place, name, names.DISTRIBUTOR, wanted.replicas, template)
    return [made, *budgets(place, name, names.DISTRIBUTOR, wanted.replicas)]

"""Processors: one Deployment a pipeline; the shards of its feeds are spread over the replicas by lease."""

from __future__ import annotations

from feedmill_operator import names
from feedmill_operator.build import pods, secrets
from feedmill_operator.build.deployment import deployment
from feedmill_operator.build.disruption import budgets
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Place
from feedmill_operator.build.receiver import POD_NAME

DEFAULTS = {"requests": {"cpu": "200m", "memory": "192Mi"}, "limits": {"memory": "768Mi"}}
SERVERS = (names.REDIS, names.POSTGRES)


def processor(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    wanted = inputs.pipeline.spec.processor
    keys = secrets.server_keys(inputs.pipeline, SERVERS)
    named = ["--pipeline", "/".join(inputs.pipeline.key), "--replica", "$(POD_NAME)"]
    process = pods.Process(
        component=names.PROCESSOR,
        image=inputs.image,
        args=pods.service_args("processor", named, keys),
        config_map=names.pipeline_config(place.pipeline),
        keys=keys,
        env=[POD_NAME, *secrets.url_files(inputs.pipeline, SERVERS)],
        defaults=DEFAULTS,
        resources=wanted.resources,
        probes=pods.health_probes(),
        ports=[pods.health_port()],
    )
    name = names.processor(place.pipeline)
    template = pods.pod(place, process, template=wanted.pod_template, restart=inputs.restart)
    made = deployment(place, name, names.PROCESSOR, wanted.replicas, template)
    return [made, *budgets(place, name, names.PROCESSOR, wanted.replicas)]

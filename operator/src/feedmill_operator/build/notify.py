"""What sends notifications: one pod, since two would send everything twice."""

from __future__ import annotations

from feedmill_operator import names
from feedmill_operator.build import pods, secrets
from feedmill_operator.build.deployment import deployment
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Place

DEFAULTS = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
SERVERS = (names.REDIS, names.POSTGRES)


def notify(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    if inputs.pipeline.spec.notifications is None:
        return []
    keys = [*secrets.server_keys(inputs.pipeline, SERVERS), *secrets.notification_keys(inputs.pipeline)]
    process = pods.Process(
        component=names.NOTIFY,
        image=inputs.image,
        args=pods.service_args("notify", ["--pipeline", "/".join(inputs.pipeline.key)], keys),
        config_map=names.general_config(place.pipeline),
        keys=keys,
        env=secrets.url_files(inputs.pipeline, SERVERS),
        defaults=DEFAULTS,
        probes=pods.health_probes(),
        ports=[pods.health_port()],
    )
    # Where the processors may run it may too: it is of the same image and needs the same servers.
    template = pods.pod(place, process, template=inputs.pipeline.spec.processor.pod_template, restart=inputs.restart)
    return [deployment(place, names.notify(place.pipeline), names.NOTIFY, 1, template, alone=True)]

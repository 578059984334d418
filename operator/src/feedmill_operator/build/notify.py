"""What sends notifications: one pod, since two would send everything twice."""

from __future__ import annotations

from feedmill_operator import names
from feedmill_operator.build import pods, secrets
from feedmill_operator.build.deployment import deployment
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Head, Place, manifest

HEALTH = "health"
"""In the name of the Service."""
DEFAULTS = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
SERVERS = (names.POSTGRES,)


def health_service(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    """A name with the addresses of all pods of the pipeline, ready or not: what sends notifications asks them how they
    are."""
    if inputs.pipeline.spec.notifications is None:
        return []
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {names.PIPELINE: place.pipeline, names.PART_OF: "feedmill"},
        "ports": [{"name": pods.HEALTH, "port": names.HEALTH_PORT, "targetPort": names.HEALTH_PORT, "protocol": "TCP"}],
    }
    head = Head("v1", "Service", names.service(place.pipeline, HEALTH))
    return [manifest(place, head, names.NOTIFY, spec=spec)]


def notify(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    if inputs.pipeline.spec.notifications is None:
        return []
    keys = [*secrets.server_keys(inputs.pipeline, SERVERS), *secrets.notification_keys(inputs.pipeline)]
    host = f"{names.service(place.pipeline, HEALTH)}.{place.namespace}.svc"
    named = ["--pipeline", "/".join(inputs.pipeline.key), "--processes", f"{host}:{names.HEALTH_PORT}"]
    process = pods.Process(
        component=names.NOTIFY,
        image=inputs.image,
        args=pods.service_args("notify", named, keys),
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

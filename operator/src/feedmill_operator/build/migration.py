"""The Job that brings the database's schema to what an image needs, before any processor of that image starts."""

from __future__ import annotations

from feedmill_operator import names
from feedmill_operator.build import pods, secrets
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Head, Place, manifest

DEFAULTS = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
PATIENCE = 180
"""Seconds one try waits for a database that cannot be reached (a managed one is just being made)."""


def migration_key(inputs: PipelineInputs) -> str:
    """What a migration is of: an image and a database. Another of either is migrated anew (which may find it done)."""
    key = secrets.url_key(inputs.pipeline, names.POSTGRES)
    return f"{inputs.image} {key.secret}/{key.key}"


def migration(place: Place, inputs: PipelineInputs) -> Manifest:
    url = secrets.url_key(inputs.pipeline, names.POSTGRES)
    env: list[Manifest] = [{"name": "DATABASE_URL_FILE", "value": url.path}]
    tls = inputs.pipeline.spec.postgres.tls
    if tls is not None:
        authority = secrets.Key(tls.ca_secret_ref.name, tls.ca_secret_ref.key)
        # As the services do it: whoever names an authority wants the server checked. sslmode in the URL comes first.
        env.append({"name": "PGSSLMODE", "value": "verify-full"})
        env.append({"name": "PGSSLROOTCERT", "value": authority.path})
    process = pods.Process(
        component=names.MIGRATION,
        image=inputs.image,
        args=["migrate", "--wait", f"{PATIENCE}s"],
        keys=secrets.server_keys(inputs.pipeline, (names.POSTGRES,)),
        env=env,
        defaults=DEFAULTS,
    )
    spec: Manifest = {
        "backoffLimit": 6,
        "template": pods.pod(place, process, template=inputs.pipeline.spec.processor.pod_template, never=True),
    }
    name = names.migration(place.pipeline, migration_key(inputs))
    return manifest(place, Head("batch/v1", "Job", name), names.MIGRATION, spec=spec)

"""All objects of one FeedPipeline, in the order of applying."""

from __future__ import annotations

from feedmill_operator import names
from feedmill_operator.build import config
from feedmill_operator.build.accounts import accounts, accounts_config
from feedmill_operator.build.backup import backups
from feedmill_operator.build.general import general_config
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.maintenance import maintenance
from feedmill_operator.build.managed import managed_postgres, managed_redis
from feedmill_operator.build.migration import migration
from feedmill_operator.build.monitoring import monitors
from feedmill_operator.build.network import policies
from feedmill_operator.build.notify import health_service, notify
from feedmill_operator.build.objects import Head, Place, manifest
from feedmill_operator.build.processor import processor


def build_pipeline(inputs: PipelineInputs) -> list[Manifest]:
    """Servers first, then the migration, then what writes. A suspended pipeline keeps its servers and configuration.

    Raises ConfigTooLarge.
    """
    namespace, name = inputs.pipeline.key
    place = Place(namespace, name, inputs.owner)
    made = [
        _account(place),
        config.pipeline_config(place, inputs.pipeline, inputs.feeds),
        *accounts_config(place, inputs),
        *general_config(place, inputs),
        *managed_redis(place, inputs),
        *managed_postgres(place, inputs),
        *health_service(place, inputs),
        *policies(place, inputs),
    ]
    if not inputs.pipeline.spec.suspend:
        made.append(migration(place, inputs))
        if inputs.migrated:
            made += processor(place, inputs)
            made += accounts(place, inputs)
            made += notify(place, inputs)
        made.append(maintenance(place, inputs))
    return [*made, *backups(place, inputs), *monitors(place, inputs)]


def _account(place: Place) -> Manifest:
    """Of all pods of a pipeline and its feeds: no rights, no token."""
    head = Head("v1", "ServiceAccount", names.account(place.pipeline))
    return manifest(place, head, "account", automountServiceAccountToken=False)

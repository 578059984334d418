"""Account receivers: one Deployment a pipeline; its accounts are spread over the replicas by lease.

Secrets of ExchangeAccounts are mounted as files and followed by the processes, so a changed one restarts nothing.
Another *name* of a Secret is another volume, which only new pods have: they take over before the old ones go.
"""

from __future__ import annotations

from feedmill.plan import has_account_pool
from feedmill_operator import names
from feedmill_operator.build import config, pods, secrets
from feedmill_operator.build.deployment import deployment
from feedmill_operator.build.disruption import budgets
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Place
from feedmill_operator.build.receiver import POD_NAME

DEFAULTS = {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "768Mi"}}
SERVERS = (names.REDIS, names.POSTGRES)


def wanted(inputs: PipelineInputs) -> bool:
    """Whether the pipeline listens to accounts at all."""
    return has_account_pool(inputs.pipeline, inputs.accounts)


def accounts_config(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    """Raises ConfigTooLarge."""
    return [config.accounts_config(place, inputs.pipeline, inputs.accounts)] if wanted(inputs) else []


def accounts(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    if not wanted(inputs):
        return []
    pool = inputs.pipeline.account_pool
    keys = secrets.server_keys(inputs.pipeline, SERVERS)
    wrapping = secrets.key_encryption_key(inputs.pipeline)
    env = [POD_NAME, *secrets.url_files(inputs.pipeline, SERVERS)]
    if wrapping is not None:
        env.append({"name": "FEEDMILL_KEK_FILE", "value": wrapping.path})
    named = ["--pipeline", "/".join(inputs.pipeline.key), "--replica", "$(POD_NAME)"]
    process = pods.Process(
        component=names.ACCOUNTS,
        image=inputs.image,
        args=pods.service_args("accounts", named, keys),
        config_map=names.accounts_config(place.pipeline),
        keys=keys,
        # One that is missing costs its own account, not the pod with all the others.
        optional_keys=[*secrets.account_keys(inputs.accounts), *([wrapping] if wrapping is not None else [])],
        env=env,
        defaults=DEFAULTS,
        resources=pool.resources,
        probes=pods.health_probes(),
        ports=[pods.health_port()],
    )
    name = names.accounts(place.pipeline)
    template = pods.pod(place, process, template=pool.pod_template, restart=inputs.restart)
    made = deployment(place, name, names.ACCOUNTS, pool.replicas, template)
    return [made, *budgets(place, name, names.ACCOUNTS, pool.replicas)]

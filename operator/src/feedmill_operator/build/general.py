"""The configuration that backups and notifications share: one ConfigMap, where there are any."""

from __future__ import annotations

from feedmill_operator.build import config
from feedmill_operator.build.inputs import Manifest, PipelineInputs
from feedmill_operator.build.objects import Place


def general_config(place: Place, inputs: PipelineInputs) -> list[Manifest]:
    """Raises ConfigTooLarge."""
    spec = inputs.pipeline.spec
    if spec.backup is None and spec.notifications is None:
        return []
    return [config.general_config(place, inputs.pipeline, inputs.feeds, inputs.accounts)]

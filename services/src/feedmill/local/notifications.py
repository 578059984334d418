"""What local mode needs to send notifications, checked before anything is started: the Secret with the bot's token."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from feedmill.general.notify.settings import notify_settings, read_token
from feedmill.plan import Workload, show_key
from feedmill.resources.collection import Resources


def without_token(
    workloads: Iterable[Workload], resources: Resources, secrets_dir: Path | None
) -> tuple[list[Workload], list[str]]:
    """The processes that can be run, and lines for people: who is told nothing, since there is no ``secrets_dir``.

    Raises ConfigError where a token is to be found and cannot be used.
    """
    kept: list[Workload] = []
    lines: list[str] = []
    for load in workloads:
        if load.role == "notify":
            settings = notify_settings(resources, resources.pipelines[load.pipeline])
            if secrets_dir is None:
                lines.append(
                    f"pipeline {show_key(load.pipeline)}: spec.notifications needs --secrets-dir with "
                    f"{settings.token_ref.name}/{settings.token_ref.key}: nobody is told of anything"
                )
                continue
            read_token(settings, secrets_dir)
        kept.append(load)
    return kept, lines

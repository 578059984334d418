"""One pipeline out of the manifests that a command is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from feedmill.cli.common import BAD_CONFIG, fail

if TYPE_CHECKING:
    from feedmill.resources.collection import Resources
    from feedmill.resources.pipeline import FeedPipeline


def one_pipeline(
    resources: Resources, name: str | None, meant: Callable[[FeedPipeline], bool] = lambda _: True
) -> FeedPipeline:
    """The one that ``--pipeline`` names, or the only one that can be ``meant``; ends the command where there is none
    such, or several."""
    from feedmill.resources.problems import choose

    found = {"/".join(key): item for key, item in resources.pipelines.items()}
    found = {key: item for key, item in found.items() if key == name or meant(item)}
    chosen = name if name is not None or len(found) != 1 else next(iter(found))
    if chosen is None or chosen not in found:
        fail(f"--pipeline {chosen or ''}: {choose(chosen or '', sorted(found))}", BAD_CONFIG)
    return found[chosen]

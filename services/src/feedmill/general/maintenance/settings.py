"""What maintenance works by, taken from the resources. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from feedmill.general.backup.slot import most_kept
from feedmill.processor.settings import retention_of
from feedmill.resources.collection import Key, Resources
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.clock import SECOND
from feedmill.shared.partitions import DAY_NS

LEAST_AUDIT = 30 * DAY_NS
"""What is younger the table itself refuses to let go (migration 0003)."""
GONE_FOR = 7 * DAY_NS
"""How long a feed must be in no manifest, and its streams still, before they are removed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a run works by."""

    pipeline: Key
    partitions_ns: Mapping[str, int]
    """Partitioned table -> ns its rows are kept."""
    dead_letters_ns: int
    audit_ns: int
    feeds: Mapping[Key, int] = field(default_factory=dict)
    """Feeds of the pipeline, suspended ones included -> shards."""
    gone_for_ns: int = GONE_FOR
    log_kept_bytes: int = 0
    """Most that the server may keep of its log for the continuous backup; 0: there is to be none."""


def settings_of(pipeline: FeedPipeline, resources: Resources) -> Settings:
    kept = pipeline.spec.retention
    return Settings(
        pipeline=pipeline.key,
        partitions_ns=retention_of(pipeline),
        dead_letters_ns=int(kept.dead_letters.seconds * SECOND),
        audit_ns=max(LEAST_AUDIT, int(kept.audit.seconds * SECOND)),
        feeds={feed.key: feed.spec.receiver.shards for feed in resources.feeds_of(pipeline)},
        log_kept_bytes=most_kept(pipeline.spec.backup),
    )

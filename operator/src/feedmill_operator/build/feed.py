"""All objects of one ExchangeFeed, in the order of applying."""

from __future__ import annotations

from dataclasses import replace

from feedmill.plan import working_shards
from feedmill_operator.build import config
from feedmill_operator.build.distributor import distributor
from feedmill_operator.build.inputs import FeedInputs, Manifest
from feedmill_operator.build.objects import Place
from feedmill_operator.build.receiver import receiver


def build_feed(inputs: FeedInputs) -> list[Manifest]:
    """Distributors before receivers: who consumes is there first. A suspended feed keeps its configuration only."""
    feed, pipeline = inputs.feed, inputs.pipeline
    namespace, name = feed.key
    place = Place(namespace, pipeline.metadata.name, inputs.owner, name)
    made = [config.feed_config(place, feed, pipeline)]
    if feed.spec.suspend:
        return made
    shards = [replace(place, shard=shard) for shard in working_shards(feed)]
    for shard in shards:
        made += distributor(shard, inputs)
    for shard in shards:
        made += receiver(shard, inputs)
    return made

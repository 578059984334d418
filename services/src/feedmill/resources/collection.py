"""All resources of a set of files. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from feedmill.resources.account import ExchangeAccount
from feedmill.resources.account_pool import AccountPool
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline

Key = tuple[str, str]
"""(namespace, name)."""


@dataclass(slots=True)
class Resources:
    """All resources of a set of files, checked on their own and against each other."""

    feeds: dict[Key, ExchangeFeed] = field(default_factory=dict)
    pipelines: dict[Key, FeedPipeline] = field(default_factory=dict)
    accounts: dict[Key, ExchangeAccount] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    """Objects of other API groups in the same files (``feed.yaml:12: Secret redis``); they are not used."""

    def feeds_of(self, pipeline: FeedPipeline) -> list[ExchangeFeed]:
        """Feeds that go through ``pipeline``, suspended ones included, by name."""
        namespace, name = pipeline.key
        return [
            feed
            for key, feed in sorted(self.feeds.items())
            if key[0] == namespace and feed.spec.pipeline_ref.name == name
        ]

    def accounts_of(self, pipeline: FeedPipeline) -> list[ExchangeAccount]:
        """Accounts that go through ``pipeline``, suspended ones included, by name."""
        namespace, name = pipeline.key
        return [
            account
            for key, account in sorted(self.accounts.items())
            if key[0] == namespace and account.spec.pipeline_ref.name == name
        ]

    def pool_of(self, account: ExchangeAccount) -> AccountPool:
        """How the pipeline that ``account`` names listens to accounts; there is one, the loader has checked it."""
        return self.pipelines[(account.metadata.namespace, account.spec.pipeline_ref.name)].account_pool

    def pipeline_of(self, feed: ExchangeFeed) -> FeedPipeline:
        """The pipeline ``feed`` names; there is one, the loader has checked it."""
        return self.pipelines[(feed.metadata.namespace, feed.spec.pipeline_ref.name)]

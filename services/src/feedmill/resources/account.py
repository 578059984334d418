"""``ExchangeAccount``: orders, fills, balances and positions of one account, whose secrets are in a Secret."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from feedmill.resources.base import NAME_RULE, Boolean, Hint, Model, ObjectMeta, Rule
from feedmill.resources.common import PipelineRef, SecretRef
from feedmill.resources.feed import Endpoints
from feedmill.resources.status import AccountStatus
from feedmill.resources.types import Environment


class AccountExchange(Model):
    """Where the account is."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$"), Hint("write it in lower case, such as binance")]
    """Exchange, in lower case. Immutable."""
    market: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,31}$"), Hint("write it in CamelCase, such as Spot")]
    """Market of the exchange. Immutable."""
    environment: Environment = Environment.PRODUCTION
    """Which installation of the venue. Immutable."""
    endpoints: Endpoints | None = None
    """Other addresses than the venue's own."""


class AccountSpec(Model):
    """What is wanted of an account."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.pipelineRef.name == oldSelf.pipelineRef.name",
            "the pipeline of an account is immutable, since its streams and positions live there: make a new account",
            ".pipelineRef",
            True,
        ),
        Rule(
            "self.exchange.name == oldSelf.exchange.name && self.exchange.market == oldSelf.exchange.market && "
            "self.exchange.environment == oldSelf.exchange.environment",
            "the exchange of an account is immutable: make a new account",
            ".exchange",
            True,
        ),
    )

    pipeline_ref: PipelineRef
    """The FeedPipeline the account's events go through. Immutable."""
    exchange: AccountExchange
    """Where the account is."""
    credentials_secret_ref: SecretRef
    """Secret with the keys `apiKey` (Deribit: the client id) and `apiSecret`, or `privateKey` in its place where the
    venue takes Ed25519 (Binance: PEM). Use a key that only reads. Changed secrets are taken without a restart."""
    suspend: Boolean = False
    """True stops the account's connection; what is stored stays."""


class ExchangeAccount(Model):
    """Orders, fills, balances and positions of one account, with its secrets in a Secret. For many accounts there is
    the credential store instead (`feedmill accounts`)."""

    rules: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    api_version: Literal["feedmill.dev/v1alpha1"] = "feedmill.dev/v1alpha1"
    """Always `feedmill.dev/v1alpha1`."""
    kind: Literal["ExchangeAccount"] = "ExchangeAccount"
    """Always `ExchangeAccount`."""
    metadata: ObjectMeta
    """Name and labels."""
    spec: AccountSpec
    """What is wanted."""
    status: AccountStatus | None = None
    """Written by the operator."""

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.metadata.namespace, self.metadata.name

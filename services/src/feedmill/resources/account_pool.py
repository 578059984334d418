"""``FeedPipeline.spec.accounts``: the processes that listen to accounts, and what their keys may be able to do."""

from __future__ import annotations

from pydantic import Field

from feedmill.resources.base import Model
from feedmill.resources.common import PodTemplate, Replicas, ResourceRequirements, SecretKeyRef
from feedmill.resources.types import CheckInterval, WithdrawPolicy


class Permissions(Model):
    """What is made of the rights that an exchange says a key has. They are read at the key's first use too."""

    withdraw: WithdrawPolicy = WithdrawPolicy.REFUSE
    """A key that may withdraw: `Refuse` = its account is not listened to, `Flag` = it is, with a warning."""
    check_every: CheckInterval = CheckInterval("24h")
    """How often the rights are read again."""


class AccountPool(Model):
    """The processes that listen to accounts: those of ExchangeAccounts and those of the credential store. Their
    accounts are spread over them."""

    replicas: Replicas = 1
    """Processes. With more than one, the accounts of one that dies go to the others."""
    key_encryption_secret_ref: SecretKeyRef | None = None
    """The key-encryption keys, one a line: an id and 32 bytes as base64. Without it only ExchangeAccounts are listened
    to: the secrets of the credential store (`feedmill accounts`) cannot be opened."""
    permissions: Permissions = Field(default_factory=Permissions)
    """What is made of the rights that an exchange says a key has."""
    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
    """CPU and memory of the container."""
    pod_template: PodTemplate | None = None
    """Additions to the pods."""

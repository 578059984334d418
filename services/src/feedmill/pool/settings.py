"""What a member of the pool needs to know, taken from the resources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feedmill.accounts.declared import Declared
from feedmill.accounts.store import Name
from feedmill.resources.types import WithdrawPolicy
from feedmill.shared.lease import TTL

if TYPE_CHECKING:
    from feedmill.resources.account import ExchangeAccount
    from feedmill.resources.pipeline import FeedPipeline


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Durations in seconds, sizes in bytes."""

    pipeline: tuple[str, str] = ("default", "main")
    replica: str = "r0"
    """For people: several processes may have the same name."""
    egress: str = "default"
    """Name of the outgoing address: who shares it shares the venues' limits."""
    members: int = 1
    """How many there are at least."""
    key_file: Path | None = None
    """Key-encryption keys; None = secrets of the credential store cannot be opened."""
    secrets_dir: Path | None = None
    """Of the Secrets that ExchangeAccounts name."""
    declared: tuple[Declared, ...] = ()
    """The ExchangeAccounts of the pipeline."""
    allow_withdraw: bool = False
    check_every: float = 86_400.0
    """Between two readings of what a key may do."""
    lease_ttl: float = TTL
    """Seconds after which the accounts of a member that was killed are another's."""
    list_every: float = 2.0
    """Between two looks at the list of accounts, and at mounted secrets."""
    memory: int = 64 * 1024 * 1024
    """Budget of the process for what is heard and not yet confirmed."""
    connections: int = 4
    """To PostgreSQL, for storing."""
    statement_timeout: float = 30.0
    postgres_failures: int = 5
    postgres_reset: float = 30.0
    redis_failures: int = 5
    redis_reset: float = 30.0
    share: float = 0.5
    """Share of the venue's limits to use (others may sit behind the same address)."""
    append_timeout: float = 4.0
    distribute_timeout: float = 4.0
    store_timeout: float = 5.0
    """How long an orderly end waits for what was heard to be appended, distributed and stored."""
    drain_timeout: float = 10.0
    """The same for all three together."""


def pool_settings(
    pipeline: FeedPipeline,
    accounts: Sequence[ExchangeAccount],
    replica: str,
    key_file: Path | None = None,
    secrets_dir: Path | None = None,
) -> PoolSettings:
    """``key_file``: goes before spec.accounts.keyEncryptionSecretRef."""
    spec, pool = pipeline.spec, pipeline.account_pool
    reference = pool.key_encryption_secret_ref
    if key_file is None and reference is not None and secrets_dir is not None:
        # Not resolved: what the links of a mounted Secret lead to changes.
        key_file = secrets_dir / reference.name / reference.key
    return PoolSettings(
        pipeline=pipeline.key,
        replica=replica,
        egress=spec.egress,
        members=pool.replicas,
        key_file=key_file,
        secrets_dir=secrets_dir,
        declared=tuple(_declared(account) for account in accounts),
        allow_withdraw=pool.permissions.withdraw is WithdrawPolicy.FLAG,
        check_every=pool.permissions.check_every.seconds,
        postgres_failures=spec.postgres.circuit_breaker.failure_threshold,
        postgres_reset=spec.postgres.circuit_breaker.reset_timeout.seconds,
        redis_failures=spec.redis.circuit_breaker.failure_threshold,
        redis_reset=spec.redis.circuit_breaker.reset_timeout.seconds,
    )


def _declared(account: ExchangeAccount) -> Declared:
    exchange = account.spec.exchange
    given = exchange.endpoints
    endpoints = {} if given is None else {"stream": given.stream, "rest": given.rest}
    return Declared(
        name=Name(account.metadata.namespace, account.metadata.name),
        exchange=exchange.name,
        market=exchange.market,
        environment=exchange.environment.value,
        secret=account.spec.credentials_secret_ref.name,
        endpoints={key: str(url) for key, url in endpoints.items() if url},
        enabled=not account.spec.suspend,
    )

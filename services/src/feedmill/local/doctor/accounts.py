"""Are the secrets of a manifest's accounts there, and what may their keys do? Each exchange is asked, once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from feedmill.accounts import mounted
from feedmill.accounts.asking import judge_key
from feedmill.accounts.fields import SecretsError
from feedmill.accounts.hygiene import Level, Verdict
from feedmill.accounts.keyring import KeyFile
from feedmill.local.doctor.check import Check, bad, ok, warn
from feedmill.plan import account_urls, show_key
from feedmill.resources.account import ExchangeAccount
from feedmill.resources.types import WithdrawPolicy
from feedmill.shared.config import ConfigError, SecretsDir

AT_ONCE = 4
"""Questions to exchanges."""


def keys(kek_file: Path) -> Check:
    """The file of key-encryption keys."""
    try:
        ring = KeyFile(kek_file, "--kek-file").ring()
    except ConfigError as error:
        return bad("key-encryption keys", str(error), "mend the file: feedmill accounts --help shows its form")
    others = len(ring.ids) - 1
    more = f", {others} other{'s' if others > 1 else ''} still open{'' if others > 1 else 's'}" if others else ""
    return ok("key-encryption keys", f"{ring.current} wraps{more}")


async def checks(accounts: Sequence[tuple[ExchangeAccount, WithdrawPolicy]], secrets_dir: Path | None) -> list[Check]:
    """One line an account, with the policy of its pipeline."""
    if not accounts:
        return []
    if secrets_dir is None:
        names = ", ".join(show_key(account.key) for account, _ in accounts)
        return [
            warn("keys of accounts", f"those of {names} were not looked at", "give --secrets-dir with their Secrets")
        ]
    try:
        secrets = SecretsDir(secrets_dir)
    except ConfigError as error:
        return [bad("keys of accounts", str(error), "name the folder that holds SECRET/apiKey and SECRET/apiSecret")]
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(account: ExchangeAccount, policy: WithdrawPolicy) -> Check:
        async with turn:
            return await _key(account, policy, secrets)

    return list(await asyncio.gather(*(one(*item) for item in accounts)))


async def _key(account: ExchangeAccount, policy: WithdrawPolicy, folder: SecretsDir) -> Check:
    spec, what = account.spec, f"account {show_key(account.key)}"
    exchange = spec.exchange
    try:
        secrets = mounted.read(folder, spec.credentials_secret_ref.name, exchange.name, exchange.market)
    except (ConfigError, SecretsError) as error:
        return bad(what, str(error), "put the keys that the exchange gave you there, one a file")
    _, rest = account_urls(account)
    try:
        judged = await judge_key(
            exchange.name, exchange.market, {"rest": rest}, exchange.environment.value, secrets,
            allow_withdraw=policy is WithdrawPolicy.FLAG,
        )  # fmt: skip
    except (OSError, TimeoutError) as error:
        return warn(what, f"the exchange does not say what its key may do: {error or 'no answer'}", "try again later")
    return _told(what, judged.verdict)


def _told(what: str, verdict: Verdict) -> Check:
    if verdict.level is Level.OK:
        return ok(what, "its key works, and may only read")
    if verdict.level is Level.REFUSED:
        return bad(what, "it would not be listened to", str(verdict))
    return warn(what, "its key works", str(verdict))

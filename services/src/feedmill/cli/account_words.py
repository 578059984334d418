"""Accounts as ``feedmill accounts`` shows them: to programs as a document, to people as a table or as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from feedmill.accounts.store import Account, Stored
from feedmill.cli.common import columns, plain


def document(account: Account, problem: str = "") -> dict[str, Any]:
    """``problem``: why it is not listened to."""
    return {
        "name": str(account.name),
        "exchange": account.exchange,
        "market": account.market,
        "environment": account.environment,
        "origin": account.origin,
        "enabled": account.enabled,
        "problem": problem,
        "allowWithdraw": account.allow_withdraw,
        "endpoints": dict(account.endpoints),
        "key": {
            "verdict": account.verdict,
            "findings": account.verdict_detail,
            "expiresAt": plain(account.key_expires_at),
            "checkedAt": plain(account.checked_at),
        },
        "createdAt": plain(account.created_at),
        "updatedAt": plain(account.updated_at),
    }


def state(account: Account) -> str:
    return "enabled" if account.enabled else "disabled"


def table(found: list[Account], waiting: Mapping[str, str]) -> str:
    rows = [("ACCOUNT", "EXCHANGE", "STATE", "KEY", "CHECKED")]
    rows += [
        (
            str(a.name),
            a.venue,
            "no place" if str(a.name) in waiting else state(a),
            a.verdict,
            f"{a.checked_at:%Y-%m-%d %H:%M}" if a.checked_at else "never",
        )
        for a in found
    ]
    return columns(rows)


def lines(account: Account, problem: str, secrets: list[Stored], log: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{account.name}: {account.venue}, {state(account)}"
    if problem:
        yield f"  not listened to: {problem}"
    for key, url in account.endpoints.items():
        yield f"  {key}: {url}"
    policy = "withdrawal allowed by policy" if account.allow_withdraw else "a key that may withdraw is refused"
    yield f"  key: {account.verdict}{f' ({account.verdict_detail})' if account.verdict_detail else ''}; {policy}"
    for item in secrets:
        yield f"  {item.field}: version {item.version} of {item.created_at:%Y-%m-%d %H:%M}, wrapped by {item.key_id}"
    for entry in log:
        what = f"{entry['action']} by {entry['actor']} at {entry['place']}"
        detail = _words(entry["detail"])
        yield f"  {entry['at'][:19]}Z {what}{f' ({detail})' if detail else ''}"


def _words(detail: dict[str, Any]) -> str:
    """What an entry of the log tells, for people."""
    parts = []
    for name, value in detail.items():
        told = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f"{name}: {told}" if told else "")
    return "; ".join(filter(None, parts))

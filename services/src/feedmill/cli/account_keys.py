"""A key is looked at before it is stored: what it may do, asked at the exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

import typer

from feedmill.accounts.asking import Judged, judge_key
from feedmill.accounts.fields import Secrets
from feedmill.accounts.hygiene import Level
from feedmill.accounts.store import AccountError

CheckKey = Annotated[
    bool,
    typer.Option("--check/--no-check", help="Ask the exchange what the key may do before it is stored."),
]


def look_at_key(
    name: str, exchange: str, market: str, endpoints: Mapping[str, str], environment: str, secrets: Secrets,
    *, allow_withdraw: bool,
) -> Judged | None:  # fmt: skip
    """None: the exchange did not answer, which is told and no reason to refuse the key. Raises AccountError for one
    that would not be listened to."""
    try:
        judged = asyncio.run(
            judge_key(exchange, market, endpoints, environment, secrets, allow_withdraw=allow_withdraw)
        )
    except (OSError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        typer.echo(f"the key was not looked at ({why}): that is done before its first use", err=True)
        return None
    if judged.verdict.level is Level.REFUSED:
        raise AccountError(
            f"{name}: nothing is stored, since the key would not be listened to: {judged.verdict}. "
            "With --no-check it is stored all the same"
        )
    if judged.verdict.level is Level.WARNING:
        typer.echo(f"{name}: {judged.verdict}", err=True)
    return judged

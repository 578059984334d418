"""Where ``feedmill accounts`` takes secrets from: a file, a folder, standard input or the prompt, never arguments."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from pydantic import SecretStr

from feedmill.accounts import fields
from feedmill.accounts.fields import SecretsError
from feedmill.shared.config import read_text


def read_secrets(source: Path | None, exchange: str, market: str) -> dict[str, SecretStr]:
    """From a file, a folder, standard input or the prompt, complete and of their form. Raises SecretsError."""
    if source is None:
        if not sys.stdin.isatty():
            raise SecretsError(
                "there is no terminal to ask on: give the secrets by --secret-file FILE (- reads them here)"
            )
        found = _prompted()
    elif str(source) == "-":
        found = fields.parse(sys.stdin.read(), "standard input")
    elif source.is_dir():
        found = {
            name: SecretStr(read_text(source / name, f"--secret-file {source}"))
            for name in fields.KNOWN
            if (source / name).exists()
        }
    else:
        found = fields.parse(read_text(source.expanduser().resolve(), "--secret-file"), f"--secret-file {source}")
    fields.check(exchange, market, found)
    return found


def _prompted() -> dict[str, SecretStr]:
    """What is typed is not shown."""
    return {name: SecretStr(getpass.getpass(f"{name}: ").strip()) for name in (fields.API_KEY, fields.API_SECRET)}

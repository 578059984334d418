"""Secrets of an account from a mounted Secret: one file a secret, under the names that the credential store has.

They are read whenever they are asked for: what a Secret held before may have been changed.
"""

from __future__ import annotations

from pydantic import SecretStr

from feedmill.accounts import fields
from feedmill.accounts.fields import SecretsError
from feedmill.shared.config import SecretsDir


def read(folder: SecretsDir, secret: str, exchange: str, market: str) -> dict[str, SecretStr]:
    """Complete and of their form, registered for redaction. Reads files: in a service, call it in a thread.

    Raises ConfigError where a file is missing or cannot be read, SecretsError where one holds what cannot be right.
    """
    names = [name for name in fields.KNOWN if (folder.root / secret / name).exists()]
    if fields.API_KEY not in names:
        names.append(fields.API_KEY)  # Reading it says what is missing: the folder, or the file.
    found = {name: folder.read(secret, name) for name in names}
    try:
        fields.check(exchange, market, found)
    except SecretsError as error:
        raise SecretsError(f"Secret {secret!r}: {error}") from None
    return found

"""Secrets of an account from a mounted Secret: one file a secret, under the names that the credential store has.

They are read whenever they are asked for: what a Secret held before may have been changed.
"""

from __future__ import annotations

from pydantic import SecretStr

from feedmill.accounts import fields
from feedmill.accounts.fields import SecretsError
from feedmill.shared.config import SecretsDir

_TRIES = 5
"""Readings until two in a row are equal."""


def read(folder: SecretsDir, secret: str, exchange: str, market: str) -> dict[str, SecretStr]:
    """Complete and of their form, registered for redaction. Reads files: in a service, call it in a thread.

    Raises ConfigError where a file is missing or cannot be read, SecretsError where one holds what cannot be right.
    """
    found = _all(folder, secret)
    for _ in range(_TRIES):
        # Kubernetes swaps the files of a Secret at once, but we read them one by one: never half of each.
        before, found = found, _all(folder, secret)
        if found == before:
            break
    try:
        fields.check(exchange, market, found)
    except SecretsError as error:
        raise SecretsError(f"Secret {secret!r}: {error}") from None
    return found


def _all(folder: SecretsDir, secret: str) -> dict[str, SecretStr]:
    names = [name for name in fields.KNOWN if (folder.root / secret / name).exists()]
    if fields.API_KEY not in names:
        names.append(fields.API_KEY)  # Reading it says what is missing: the folder, or the file.
    return {name: folder.read(secret, name) for name in names}

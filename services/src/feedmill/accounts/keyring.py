"""Key-encryption keys, from a file that a Secret or the user provides.

One key a line: its id, white space, 32 bytes as base64 or hex. The first line is the current key, which wraps; the
others only unwrap what was wrapped before. Empty lines and lines that begin with # are left out. The file is read again
whenever it is asked for, so a changed one needs no restart.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

from feedmill.shared.config import ConfigError, read_text
from feedmill.shared.log import register_secret

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_FORM = 'write an id and 32 random bytes as base64, such as: echo "2026-11 $(openssl rand -base64 32)"'


class KeyringError(ConfigError):
    """The key file cannot be used; the message names line and remedy, never a key."""


class Keyring:
    """Keys by id. Never shows them."""

    __slots__ = ("_keys", "current")

    def __init__(self, keys: dict[str, bytes], current: str) -> None:
        self._keys = keys
        self.current = current
        """Id of the key that wraps."""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def key(self, key_id: str) -> bytes:
        return self._keys[key_id]

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._keys

    def __repr__(self) -> str:
        return f"Keyring(current={self.current!r}, ids={self.ids!r})"


def _decode(text: str) -> bytes | None:
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        found = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        return None
    return found if len(found) == 32 else None


def parse_keyring(text: str, source: str) -> Keyring:
    """Keys of a file's text; ``source`` names it in messages. Raises KeyringError."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        where = f"{source}, line {number}"
        # The id may be the key itself, put in the wrong place: it is not repeated until it has proved to be one.
        if len(parts) != 2 or not _ID.fullmatch(parts[0]):
            raise KeyringError(f"{where}: is not an id and a key: {_FORM}")
        key_id, key = parts[0], _decode(parts[1])
        if key is None:
            raise KeyringError(f"{where}: the key is not 32 bytes as base64 or hex: {_FORM}")
        if len(set(key)) < 8:
            raise KeyringError(f"{where}: the key is not random: {_FORM}")
        if key_id in keys:
            raise KeyringError(f"{where}: the id {key_id} stands in an earlier line already: give each key its own")
        if key in keys.values():
            raise KeyringError(f"{where}: the key stands in an earlier line already: a new id needs a new key")
        register_secret(parts[1])
        keys[key_id] = key
    if not keys:
        raise KeyringError(f"{source}: holds no key: {_FORM}")
    return Keyring(keys, next(iter(keys)))


class KeyFile:
    """A key file that may change while the process runs."""

    def __init__(self, path: Path, source: str = "the key file") -> None:
        self._path = path
        self._source = f"{source} {path}"
        self._text = ""
        self._ring: Keyring | None = None
        self.error = ""
        """Why the file as it is now is not used; empty when it is."""

    def ring(self) -> Keyring:
        """The keys as the file has them now. Reads the file: in a service, call it in a thread.

        A changed file that cannot be used leaves the former keys in force (:attr:`error` says why), unless there are
        none yet: then it raises ConfigError.
        """
        try:
            text = read_text(self._path.expanduser().resolve(), self._source)
            if text != self._text or self._ring is None:
                self._ring, self._text = parse_keyring(text, self._source), text
        except ConfigError as error:
            self.error = str(error)
            if self._ring is None:
                raise
        else:
            self.error = ""
        return self._ring

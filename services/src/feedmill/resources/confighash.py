"""The name of a configuration: what the operator wants a process to work with, and what the process says it does."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def config_hash(files: Mapping[str, str]) -> str:
    """Of file name -> text, as mounted; 16 hexadecimal digits. The order of the files does not matter."""
    digest = hashlib.sha256()
    for name in sorted(files):
        for part in (name, files[name]):
            data = part.encode()
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]

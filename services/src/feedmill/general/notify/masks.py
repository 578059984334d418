"""Accounts' names made unreadable for who should not know them, and still told apart. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable


def mask(name: str) -> str:
    """``main-fund`` -> ``m…3f9a``: the first letter, and four digits of a fingerprint. Of ``namespace/name`` the name
    alone is masked."""
    space, slash, own = name.rpartition("/")
    return f"{space}{slash}{own[:1]}…{hashlib.sha256(name.encode()).hexdigest()[:4]}"


class Masker:
    """Masks these accounts (``namespace/name``) wherever a text names them: as such, or by their streams' name."""

    def __init__(self, accounts: Iterable[str]) -> None:
        self._shown: dict[str, str] = {}
        for account in accounts:
            space, _, own = account.rpartition("/")
            hidden = mask(account).rpartition("/")[2]
            self._shown |= {
                account: f"{space}/{hidden}", f"{space}/@{own}": f"{space}/@{hidden}",
                f"{space}.@{own}": f"{space}.@{hidden}",
            }  # fmt: skip
        longest_first = sorted(self._shown, key=len, reverse=True)
        names = "|".join(re.escape(name) for name in longest_first)
        # Whole names only: that of one account may be how another's begins.
        self._names = re.compile(rf"(?<![\w.-])(?:{names})(?![\w-])") if names else None

    def __call__(self, text: str) -> str:
        return text if self._names is None else self._names.sub(lambda m: self._shown[m[0]], text)

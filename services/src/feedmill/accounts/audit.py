"""The audit log: who used or changed which account's secrets, from where, when. Written with what it tells of."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg


@dataclass(frozen=True, slots=True)
class Who:
    """Who acts: a user of the operating system or a service, and the host or pod."""

    actor: str
    place: str

    @classmethod
    def here(cls, service: str = "") -> Who:
        """This process. In a cluster the host's name is the pod's."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # A user id without a name, as pods have.
            user = f"uid {os.getuid()}"
        return cls(f"{service} ({user})" if service else user, socket.gethostname())


async def write(
    connection: asyncpg.Connection,
    who: Who,
    action: str,
    account_id: int | None = None,
    account: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Add an entry, in the transaction that is open. ``detail`` names what was done and never holds a secret."""
    await connection.execute(
        "INSERT INTO audit_log (actor, place, action, account_id, account, detail) VALUES ($1, $2, $3, $4, $5, $6)",
        *(who.actor, who.place, action, account_id, account, json.dumps(dict(detail or {}))),
    )

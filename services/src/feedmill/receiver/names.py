"""How a session is called."""

from __future__ import annotations

import secrets

from feedmill.shared.clock import MS


def new_session_id(replica: str, started_ns: int) -> str:
    """``<replica>-<started ms, 12 hex digits><6 random hex>``: sorts by start within a replica."""
    return f"{replica}-{started_ns // MS:012x}{secrets.token_hex(3)}"

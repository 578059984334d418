"""Dead letters for people: times, lines and bytes as text. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from feedmill.dlq.letters import Letter
from feedmill.shared.clock import SECOND

WIDTH = 16


def moment(at_ns: int) -> str:
    """UTC, to the microsecond."""
    try:
        return (
            datetime.fromtimestamp(at_ns // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            + f"{at_ns // 1000 % 10**6:06d}Z"
        )
    except (ValueError, OverflowError, OSError):
        return f"{at_ns} ns"


def text(payload: bytes, limit: int | None = None) -> str:
    """Bytes as text on one line: what is not printable is escaped, so no terminal obeys a frame."""
    shown = payload if limit is None else payload[:limit]
    line = "".join(
        char if char.isprintable() else f"\\x{ord(char):02x}" for char in shown.decode("utf-8", "backslashreplace")
    )
    return line + ("..." if len(shown) < len(payload) else "")


def hexdump(payload: bytes) -> Iterator[str]:
    """As ``hexdump -C`` shows it."""
    for at in range(0, len(payload), WIDTH):
        part = payload[at : at + WIDTH]
        left, right = part[: WIDTH // 2].hex(" "), part[WIDTH // 2 :].hex(" ")
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{at:08x}  {left:<23}  {right:<23}  |{letters}|"
    yield f"{len(payload):08x}"


def document(letter: Letter, size: int | None = None) -> dict[str, Any]:
    """As JSON. The payload is base64 (exact) and text (readable); ``size``: of the whole, where this is its begin."""
    found = {
        "id": str(letter.key),
        "shard": letter.key.shard,
        "session": letter.key.session,
        "batch": letter.key.batch,
        "index": letter.key.index,
        "connection": letter.conn,
        "receiveNs": letter.receive_ns,
        "received": moment(letter.receive_ns),
        "reason": letter.reason,
        "detail": letter.detail,
        "codeVersion": letter.code_version,
        "size": len(letter.payload) if size is None else size,
        "text": text(letter.payload),
    }
    if size is None or size == len(letter.payload):
        found["payload"] = base64.b64encode(letter.payload).decode()
    return found

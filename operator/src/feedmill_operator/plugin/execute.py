"""A command in a container, over the API server's WebSocket: a channel in front of each frame."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from feedmill_operator.kube.api import ApiError

_OUT, _ERR, _STATUS = 1, 2, 3
"""Channels."""


@dataclass(frozen=True, slots=True)
class Executed:
    """A command that ran in a container."""

    code: int
    out: str
    err: str


def run(socket: Any, timeout: float) -> Executed:
    """Read what it writes until the server closes ``socket`` (a WebSocket). Raises ApiError."""
    from websocket import ABNF, WebSocketException

    channels = {_OUT: bytearray(), _ERR: bytearray(), _STATUS: bytearray()}
    deadline = time.monotonic() + timeout
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ApiError(0, "", f"the command in the pod did not end within {timeout:g} s")
            socket.settimeout(left)
            operation, frame = socket.recv_data_frame(True)
            if operation == ABNF.OPCODE_CLOSE:
                break
            if operation in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) and frame.data and frame.data[0] in channels:
                channels[frame.data[0]] += frame.data[1:]
    except (WebSocketException, OSError) as error:
        if not channels[_STATUS]:
            raise ApiError(0, "", f"the command in the pod gave no answer: {error or type(error).__name__}") from error
    finally:
        socket.close()
    out, err = (channels[number].decode(errors="replace") for number in (_OUT, _ERR))
    return Executed(_exit_code(bytes(channels[_STATUS])), out, err)


def _exit_code(status: bytes) -> int:
    try:
        found = json.loads(status)
    except ValueError:
        raise ApiError(0, "", "the connection to the pod broke off before the command ended") from None
    if found.get("status") == "Success":
        return 0
    causes = (found.get("details") or {}).get("causes") or []
    codes = [str(cause.get("message")) for cause in causes if cause.get("reason") == "ExitCode"]
    if codes and codes[0].isdigit():
        return int(codes[0])
    raise ApiError(500, str(found.get("reason") or ""), str(found.get("message") or "the command could not be started"))

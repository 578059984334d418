"""One HTTP request through a forwarded port, over the API server's WebSocket: a channel in front of each frame.

The client library's own port-forward runs a thread that dies with a traceback when the pod refuses the connection.
"""

from __future__ import annotations

import io
import time
from http.client import HTTPException, HTTPResponse
from typing import Any, cast

from feedmill_operator.kube.api import ApiError

_DATA, _ERROR = 0, 1
"""Channels. The first frame of each holds the port's number in two bytes."""


def get(socket: Any, path: str, timeout: float) -> tuple[int, bytes]:
    """(status, body) of ``GET path``. ``socket``: a WebSocket to ``portforward`` of one port. Raises ApiError."""
    from websocket import ABNF, WebSocketException

    received = {_DATA: bytearray(), _ERROR: bytearray()}
    begun: set[int] = set()
    deadline = time.monotonic() + timeout
    try:
        socket.settimeout(timeout)
        request = f"GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n"
        socket.send(bytes([_DATA]) + request.encode(), opcode=ABNF.OPCODE_BINARY)
        while not received[_ERROR]:
            answer = _parse(bytes(received[_DATA]), whole=False)
            if answer is not None:
                return answer
            socket.settimeout(max(0.01, deadline - time.monotonic()))
            operation, frame = socket.recv_data_frame(True)
            if operation == ABNF.OPCODE_CLOSE:
                break
            if operation != ABNF.OPCODE_BINARY or not frame.data or frame.data[0] not in received:
                continue
            channel, data = frame.data[0], frame.data[1:]
            if channel not in begun:
                begun.add(channel)
                data = data[2:]
            received[channel] += data
    except (WebSocketException, OSError) as error:
        if not received[_ERROR]:
            raise ApiError(0, "", f"the forwarded port gave no answer: {error or type(error).__name__}") from error
    finally:
        socket.close()
    if received[_ERROR]:
        raise ApiError(0, "", f"the forwarded port gave no answer: {received[_ERROR].decode(errors='replace').strip()}")
    answer = _parse(bytes(received[_DATA]), whole=True)
    if answer is None:
        raise ApiError(0, "", "the forwarded port was closed before the answer was there")
    return answer


class _Received:
    """What HTTPResponse wants of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def _parse(data: bytes, *, whole: bool) -> tuple[int, bytes] | None:
    """None while the answer is not complete. ``whole``: no more will come."""
    if b"\r\n\r\n" not in data:
        return None
    response = HTTPResponse(cast(Any, _Received(data)))
    try:
        response.begin()
        if response.length is None and not response.chunked and not whole:
            return None  # It ends where the connection does.
        return response.status, response.read()
    except (HTTPException, OSError):
        return None

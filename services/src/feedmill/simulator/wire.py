"""Server side of RFC 6455 framing: unmasked frames as bytes, ready for the transport."""

from __future__ import annotations


class _Headers(dict[int, bytes]):
    """Payload length -> header of a final text frame."""

    def __missing__(self, length: int) -> bytes:
        header = _header(0x81, length)
        if length < 65536:
            self[length] = header
        return header


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


TEXT_HEADERS = _Headers()


def text_frame(payload: bytes) -> bytes:
    return TEXT_HEADERS[len(payload)] + payload


def ping_frame(payload: bytes) -> bytes:
    return _header(0x89, len(payload)) + payload


def pong_frame(payload: bytes) -> bytes:
    return _header(0x8A, len(payload)) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    body = code.to_bytes(2, "big") + reason.encode()[:123]
    return _header(0x88, len(body)) + body

"""Decoding of what other processes wrote: whatever the bytes are, a failure is one of two kinds of error."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    """Raises ``msgspec.DecodeError`` or ValueError.

    A field that this version does not know may hold anything; one nested without end would be a RecursionError, which
    is neither, and would get past those who keep what cannot be read as a dead letter.
    """
    try:
        return decoder.decode(data)
    except RecursionError:
        raise ValueError("nested deeper than any record is") from None

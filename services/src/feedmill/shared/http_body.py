"""The body of an answer, whole: aiohttp's ``read(n)`` gives what has arrived, which may be its first packet."""

from __future__ import annotations

import aiohttp


async def read_body(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """Up to ``most`` + 1 bytes: one more than ``most`` = it is larger than that, and was not read to its end.

    Raises aiohttp.ClientError, OSError, TimeoutError.
    """
    body = bytearray()
    while len(body) <= most and (more := await answer.content.read(most + 1 - len(body))):
        body += more
    return bytes(body)

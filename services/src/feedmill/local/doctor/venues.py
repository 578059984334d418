"""Can the exchanges of a manifest be reached, and does our clock agree with theirs?"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp

from feedmill.local.doctor.check import Check, bad, ok, warn
from feedmill.plan import account_urls, feed_rest_url, feed_stream_url, show_key
from feedmill.resources.account import ExchangeAccount
from feedmill.resources.feed import ExchangeFeed

TIMEOUT = 8.0
CLOCK_TOLERANCE = 2.0
"""Seconds; the answer's Date header has whole seconds."""


async def checks(feeds: Iterable[ExchangeFeed], accounts: Iterable[ExchangeAccount] = ()) -> list[Check]:
    """One line a distinct address, all asked at once."""
    users: dict[Address, dict[str, None]] = {}
    rest: dict[str, None] = {}
    wanted = [(show_key(feed.key), feed_stream_url(feed), feed_rest_url(feed)) for feed in feeds]
    wanted += [(f"account {show_key(account.key)}", *account_urls(account)) for account in accounts]
    for name, *urls in wanted:
        for url in urls:
            users.setdefault(address(url), {})[name] = None
        rest[urls[1]] = None
    reached = await asyncio.gather(*(reach(where, list(names)) for where, names in users.items()))
    clocks = await asyncio.gather(*(clock(url) for url in rest))
    return [*reached, *(item for item in clocks if item is not None)]


Address = tuple[str, int, bool]
"""Host, port, TLS."""


def address(url: str) -> Address:
    parts = urlsplit(url)
    secure = parts.scheme in ("wss", "https")
    return parts.hostname or "", parts.port or (443 if secure else 80), secure


async def reach(where: Address, used_by: list[str]) -> Check:
    """Resolve, connect and (wss, https) shake hands."""
    host, port, secure = where
    what = f"{host}:{port}"
    context = ssl.create_default_context() if secure else None
    began = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host if secure else None)
    except (OSError, TimeoutError) as error:
        found, remedy = explain(error)
        return bad(what, f"{found} (used by {', '.join(used_by)})", remedy)
    took = time.monotonic() - began
    writer.transport.abort()
    return ok(what, f"reached in {1000 * took:.0f} ms{' with TLS' if secure else ''} (used by {', '.join(used_by)})")


def explain(error: BaseException) -> tuple[str, str]:
    """(cause, remedy) of a failed connection."""
    if isinstance(error, socket.gaierror):
        return "the name cannot be resolved", "is this machine online, and does its DNS work? Is the name right?"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message
        return f"its certificate is not trusted ({reason})", "a proxy in between? Name its CA by SSL_CERT_FILE"
    if isinstance(error, ssl.SSLError):
        return f"no TLS there ({error.reason or error})", "is something between here and the exchange?"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s", "a firewall? Some exchanges do not answer from some countries"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there", "are host and port of spec.exchange.endpoints right? Does the simulator run?"
    return str(error), "is the network up?"


async def clock(url: str) -> Check | None:
    """Our clock against the Date of an HTTP answer; None when there is no answer (told by :func:`reach`)."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            session.head(url, allow_redirects=False) as answer,
        ):
            theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (aiohttp.ClientError, OSError, TimeoutError, KeyError, ValueError):
        return None
    ahead = time.time() - (theirs + 0.5)
    what = f"clock against {urlsplit(url).hostname}"
    if abs(ahead) > CLOCK_TOLERANCE:
        return warn(what, f"{ahead:+.1f} s", "set the clock by NTP: latencies and candles would be off by that much")
    return ok(what, "within a second or so")

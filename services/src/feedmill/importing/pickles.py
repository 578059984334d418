"""Unpickling plain data and nothing else.

A pickle is a program: it may import and call anything. Only the classes below are ever looked up; whatever else a file
asks for ends the reading before it runs, with the name it asked for. They have constructors that do nothing but hold a
value, and are what people's rows have in them: exact numbers and times.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import io
import pickle
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from feedmill.importing import ImportRefused


class _Refused(Exception):
    """Not an error of pickle's: told as it is."""


def _latin1(text: str, encoding: str) -> bytes:
    """How protocols 0 to 2 write bytes, and with them every datetime."""
    if encoding != "latin1":
        raise _Refused("_codecs.encode with another encoding than latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How they write empty ones. The class itself would make as many zero bytes as it is told to."""
    return b""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _no_bytes,
    ("__builtin__", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "set"): set,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("datetime", "date"): datetime.date,
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    ("decimal", "Decimal"): decimal.Decimal,
}
_SPARE, _EACH = 256 << 20, 128
"""Bytes of memory that reading a file may take: these, and so many for each of its own. (Most takes an empty list:
one byte there, 64 here.)"""
_PLAIN = "only dict, list, tuple, set, str, bytes, int, float, bool, None, Decimal and datetime are read"


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}"[:200]) from None

    def persistent_load(self, _: Any, /) -> Any:
        raise _Refused("a persistent id")

    def get(self) -> Any:
        return self.load()


@contextlib.contextmanager
def _bounded(size: int) -> Iterator[None]:
    """While ``size`` bytes are read. A place in the memo that lies (LONG_BINPUT) makes the unpickler take 16 bytes for
    each number up to it: up to all that the machine has, and with it whatever else runs there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):  # Where the system has no such limit, or no such file.
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + _SPARE + size * _EACH
        resource.setrlimit(resource.RLIMIT_AS, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def load(data: bytes, source: str) -> list[Any]:
    """The objects of a file, one for each dump that was written to it. Raises ImportRefused."""
    with _bounded(len(data)):
        return _load(data, source)


def _load(data: bytes, source: str) -> list[Any]:
    stream = io.BytesIO(data)
    objects: list[Any] = []
    while stream.tell() < len(data):
        at = stream.tell()
        read: Callable[[], Any] = _Unpickler(stream).get
        try:
            objects.append(read())
        except _Refused as error:
            raise ImportRefused(
                f"{source}: asks for {error}, which is not plain data and could run code: {_PLAIN}; "
                "write the file again from dicts and lists"
            ) from None
        except Exception as error:
            # Any exception at all may come out of damaged opcodes.
            raise ImportRefused(
                f"{source}: is not a whole pickle from byte {at} on ({type(error).__name__}): check that it was copied "
                "completely and is no other kind of file"
            ) from None
    if not objects:
        raise ImportRefused(f"{source}: is empty")
    return objects

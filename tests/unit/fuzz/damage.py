"""How a frame can be wrong: bytes changed, JSON parts dropped, doubled, or replaced by what nobody expects there."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

_MARK = "@@here@@"
DEEP = b"[" * 3000 + b"]" * 3000
NESTED = b'{"data":' * 600 + b"1" + b"}" * 600
TOKENS = [
    b"null", b"true", b"false", b"0", b"-1", b"-0", b"1.5", b"-1e3", b"1e400", b"1e-400", b"1E+99", b"1e101",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616",
    b"9" * 400, b"0." + b"1" * 400, b"9" * 5000, b"1e999999999", b"1e-999999999", b"NaN", b"Infinity",
    b'""', b'"0"', b'"NaN"', b'"-5"', b'"1e5"', b'"1e999999999"', b'"\\u0000"', b'"1\\t2\\n"', b'"\\ud800"',
    b'"\xff\xfe"',
    b'"\xc3\xa4\xf0\x9f\x98\x80"', b'"' + b"x" * 5000 + b'"', b'"{}"', b'","', b"{}", b"[]", b"[[]]", b"[[[]]]",
    b'[["1","2"]]', b'[["1"]]', b'[["1","2","3"]]', b'[["abc","def"]]', b'[["NaN","Infinity"],["-1","-1"]]',
    b'[["1","1"],["1","2"],["01.0","3"]]', b'[["new",1,2]]', b'[["gone",1,2]]', b'[["new","x","y"]]',
    b'[["new",null,{}]]', b'[["",""]]', b'[["sNaN","1"]]', b"[" + b'["1","1"],' * 500 + b'["2","1"]]', DEEP, NESTED,
]  # fmt: skip
"""What may stand in the place of any part of a frame."""


def _parts(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every part of a document but the whole."""
    found: list[tuple[Any, ...]] = []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found.append((*path, key))
        found += _parts(value, (*path, key))
    return found


def _compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


@st.composite
def _restructured(draw: st.DrawFn, frame: bytes) -> bytes:
    """One part dropped, there twice, renamed, or another thing."""
    document = json.loads(frame)
    paths = _parts(document)
    if not paths:
        return draw(st.sampled_from(TOKENS))
    path = draw(st.sampled_from(paths))
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    key = path[-1]
    original = _compact(parent[key])
    what = draw(st.sampled_from(["replace", "replace", "replace", "drop", "double", "rename"]))
    token = draw(st.sampled_from(TOKENS) | st.sampled_from([_compact(document), original]))
    if what == "drop":
        del parent[key]
        return _compact(document)
    if what == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from(["e", "s", "u", "data", "x", "params", "result", ""]))] = parent.pop(key)
        return _compact(document)
    parent[key] = _MARK
    mark = _compact(_MARK)
    if what == "double":
        # A second one of the same name, or the next element of a list.
        name = _compact(key) + b":" if isinstance(parent, dict) else b""
        return _compact(document).replace(mark, original + b"," + name + token)
    return _compact(document).replace(mark, token)


@st.composite
def _rebyted(draw: st.DrawFn, frame: bytes) -> bytes:
    """Some bytes changed, cut out, put in, or the rest is missing."""
    found = bytearray(frame)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(found)))
        new = draw(st.binary(max_size=3) | st.sampled_from([b'"', b"}", b"\x00", b"\xff", b"[", b"9" * 30]))
        found[at : at + draw(st.integers(0, 5))] = new
        if draw(st.integers(0, 9)) == 0:
            del found[at:]
    return bytes(found)


def damaged(frame: bytes) -> st.SearchStrategy[bytes]:
    """The frame, damaged in one or two ways; now and then not at all."""
    once = _restructured(frame)
    return st.one_of(once, once, _rebyted(frame), once.flatmap(_rebyted), st.just(frame), st.binary(max_size=60))

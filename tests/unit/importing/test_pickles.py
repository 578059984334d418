"""The restricted unpickler: plain data as it was, everything else refused by its name before it runs."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import resource
import subprocess
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.importing import ImportRefused
from feedmill.importing.pickles import load

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.decimals(allow_nan=False) | st.datetimes() | st.dates() | st.just(datetime(2026, 1, 1, tzinfo=UTC))
    | st.timedeltas() | st.frozensets(st.integers())
)  # fmt: skip
plain = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner), max_leaves=12
)


@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_is_read_as_it_was(value: Any, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol), "file") == [value]


class Runs:
    """Does something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(("value", "name"), [
    (Runs(os.system, "touch ran"), r"\w+.system"),
    (Runs(eval, "open('ran', 'w')"), r"\w+.eval"),
    (Runs(getattr, date, "today"), r"\w+.getattr"),
    (Runs(subprocess.Popen, ["touch", "ran"]), r"\w+.Popen"),
    ([{"price": Fraction(1, 3)}], "fractions.Fraction"),
    ({"a": collections.Counter("x")}, "collections.Counter"),
    (Path("x"), r"pathlib\.\w+"),
    (datetime.now, r"\w+.getattr"),
])  # fmt: skip
def test_everything_else_is_refused_by_its_name(
    value: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(ImportRefused, match=rf"file: asks for {name}, which is not plain data"):
            load(pickle.dumps(value, protocol), "file")
    assert not list(tmp_path.iterdir())


def test_a_dotted_name_does_not_reach_further() -> None:
    """Protocol 4 lets a pickle walk attributes: datetime.datetime is allowed, what hangs on it is not."""
    data = b"\x80\x04\x8c\x08datetime\x8c\x0cdatetime.now\x93)R."
    with pytest.raises(ImportRefused, match=r"datetime\.datetime\.now"):
        load(data, "file")


def test_a_place_that_lies_takes_no_more_memory_than_the_file_is_worth() -> None:
    """1.6 GB, else: as one damaged byte makes it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    data = b"\x80\x02K\x01r" + (10**8).to_bytes(4, "little") + b"."
    with pytest.raises(ImportRefused, match=r"file: is not a whole pickle from byte 0 on \(MemoryError\)"):
        load(data, "file")
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@given(plain, st.data())
def test_a_damaged_one_is_refused_or_plain(value: Any, data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps(value))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImportRefused):  # Any other error fails the test.
        assert isinstance(load(bytes(whole), "file"), list)


@pytest.mark.parametrize("data", [
    b"", b"not a pickle", b"\x80", pickle.dumps([1, 2, 3])[:-2], b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00x.",
    b"(" * 100_000, b"P1\n.",
])  # fmt: skip
def test_no_pickle_at_all(data: bytes) -> None:
    with pytest.raises(ImportRefused, match=r"file: (is|asks)"):
        load(data, "file")


@pytest.mark.parametrize("data", [
    b"c_codecs\nencode\n(V!\nVrot13\ntR.", b"c__builtin__\nbytes\n(I99999999999\ntR.",
])  # fmt: skip
def test_what_old_protocols_need_does_no_more_than_that(data: bytes) -> None:
    with pytest.raises(ImportRefused, match=r"file: (is not a whole|asks for _codecs.encode with another)"):
        load(data, "file")


def test_several_dumps_in_one_file() -> None:
    one, two = [{"a": Decimal("1.10")}], {"b": timedelta(1)}
    assert load(pickle.dumps(one) + pickle.dumps(two), "file") == [one, two]

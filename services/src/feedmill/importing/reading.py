"""Rows of a table as the texts of a target's fields: pure; the first value that cannot be read ends it."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from feedmill.importing import ImportRefused
from feedmill.importing.mapping import Mapping, Table
from feedmill.importing.shapes import CREDENTIALS, Field, Reader, Target
from feedmill.importing.sources import Part, Row
from feedmill.importing.spool import Column, Owner, Spool

Texts = tuple[str | None, ...]
CHUNK = 1000
"""Rows read at a time: field by field is twice as fast as row by row."""
_JSON = frozenset(("json", "data", "payload", "info", "raw", "extra"))
"""Columns that may hold a JSON object, whose members count as columns."""
_Members = tuple[tuple[str, ...], dict[str, Any]]
"""Of the JSON object of a row: their names, and all of it."""
_NOTHING: _Members = (), {}
_json = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a table is read."""

    part: Part
    target: Target
    found: dict[str, tuple[int, ...]]
    """Field -> columns that may hold it, the likeliest first."""
    constants: dict[str, Any]
    json_columns: tuple[int, ...]
    wanted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Field -> names to look for in JSON."""

    def sources(self) -> dict[str, str]:
        """Field -> where it comes from, for people."""
        told: dict[str, str] = {}
        for item in self.target.fields:
            if self.found[item.name]:
                told[item.name] = self.part.columns[self.found[item.name][0]]
            elif item.name in self.constants:
                told[item.name] = f"always {self.constants[item.name]}"
            elif self.json_columns:
                told[item.name] = f"JSON in {self.part.columns[self.json_columns[0]]}"
        return told

    def rows(self) -> Iterator[Texts]:
        """Raises ImportRefused."""
        for columns in self.chunks():
            yield from zip(*columns, strict=True)

    def chunks(self) -> Iterator[list[Column]]:
        """The texts of some rows at a time, a list for each field. Raises ImportRefused."""
        fields = self.target.fields
        reads = [functools.lru_cache(4096, typed=True)(item.read) if item.few else item.read for item in fields]
        rows = self.part.rows()
        for number in itertools.count(1, CHUNK):
            if not (chunk := list(itertools.islice(rows, CHUNK))):
                return
            members = [self._members(row) for row in chunk] if self.json_columns else None
            try:
                columns = [self._column(*each, chunk, members) for each in zip(fields, reads, strict=True)]
            except (ValueError, TypeError):  # TypeError: a list or dict, which nothing remembers.
                columns = self._one_by_one(chunk, members, number)
            yield columns

    def _column(self, item: Field, read: Reader, chunk: list[Row], members: list[_Members] | None) -> Column:
        """Raises ValueError or TypeError when a value cannot be read or is missing."""
        columns, constant = self.found[item.name], self.constants.get(item.name)
        if members is None and not columns:
            texts: Column = [None if constant is None or constant == "" else read(constant)] * len(chunk)
        else:
            if members is None and len(columns) == 1 and constant is None:
                values = [row[columns[0]] for row in chunk]
            else:
                get = self._getter(item)
                values = [get(*each) for each in zip(chunk, members or itertools.repeat(_NOTHING), strict=False)]
            texts = [None if value is None or value == "" else read(value) for value in values]
        if item.needed and None in texts:
            raise ValueError
        return texts

    def _one_by_one(self, chunk: list[Row], members: list[_Members] | None, number: int) -> list[Column]:
        """The same, slower, and the first value of the first row that cannot be read is told with its place."""
        columns: list[Column] = [[] for _ in self.target.fields]
        getters = [self._getter(item) for item in self.target.fields]
        for at, row in enumerate(chunk):
            for item, get, texts in zip(self.target.fields, getters, columns, strict=True):
                value = get(row, members[at] if members else _NOTHING)
                if value is None or value == "":
                    if item.needed:
                        raise ImportRefused(f"{self._place(number + at, item)}: is missing: {self._remedy(item)}")
                    texts.append(None)
                    continue
                try:
                    texts.append(item.read(value))
                except ValueError as error:
                    shown = "" if self.target is CREDENTIALS else f" {str(value)[:60]!r}"
                    raise ImportRefused(f"{self._place(number + at, item)}:{shown} {error}") from None
        return columns

    def _getter(self, item: Field) -> Callable[[Row, _Members], Any]:
        columns, names, constant = self.found[item.name], self.wanted[item.name], self.constants.get(item.name)
        known: dict[tuple[str, ...], list[str]] = {}
        """Names of members, as they are in the rows seen lately -> those of them that may hold it, likeliest first."""

        def get(row: Row, members: _Members) -> Any:
            for column in columns:
                if (value := row[column]) is not None:
                    return value
            keys, found = members
            if found:
                likely = known.get(keys)
                if likely is None:
                    lower = {str(key).lower(): key for key in keys}
                    if len(known) == 1000:
                        known.clear()
                    likely = known[keys] = [lower[name] for name in names if name in lower]
                for name in likely:
                    if (value := found[name]) is not None:
                        return value
            return constant

        return get

    def _members(self, row: Row) -> _Members:
        for column in self.json_columns:
            found = _object(row[column])
            if found is not None:
                return tuple(found), found
        return _NOTHING

    def _place(self, number: int, item: Field) -> str:
        return f"{self.part.name}, row {number}: {item.name}"

    def _remedy(self, item: Field) -> str:
        return f"name its column in a mapping (tables.{self.part.name}.fields.{item.name}), or give it under values"


def plan(part: Part, target: Target, mapping: Mapping) -> Plan:
    """Raises ImportRefused when a column that the mapping names is not there, or a field cannot come from anywhere."""
    table = mapping.tables.get(part.name, Table())
    lower = {name.lower(): index for index, name in reversed(list(enumerate(part.columns)))}
    found: dict[str, tuple[int, ...]] = {}
    wanted: dict[str, tuple[str, ...]] = {}
    constants = {item.name: mapping.defaults[item.name] for item in target.fields if item.name in mapping.defaults}
    constants |= table.values
    if target.name == "candles" and "interval" not in constants:
        # ohlc_1m: the name says it.
        last = part.name.rpartition("_")[2]
        constants |= {"interval": last} if last[:1].isdigit() else {}
    json_columns = tuple(index for name, index in lower.items() if name in _JSON)
    for item in target.fields:
        named = table.fields.get(item.name)
        if named is not None and named.lower() not in lower and not json_columns:
            raise ImportRefused(
                f"{part.name}: has no column {named!r}, which the mapping names for {item.name}: "
                f"it has {', '.join(part.columns)}"
            )
        names = (named.lower(),) if named is not None else (item.name.lower(), *item.names)
        wanted[item.name] = names
        found[item.name] = () if item.name in table.values else tuple(lower[name] for name in names if name in lower)
    made = Plan(part, target, found, constants, json_columns, wanted)
    if part.columns and not json_columns:
        for item in target.fields:
            if item.needed and not found[item.name] and item.name not in constants:
                raise ImportRefused(
                    f"{part.name}: no column is known for {item.name} of {target.name} (it has "
                    f"{', '.join(part.columns)}): name one in a mapping (tables.{part.name}.fields.{item.name}), "
                    "or give it under values"
                )
    return made


def _object(value: Any) -> dict[str, Any] | None:
    """A JSON object, as a text or as it is. A damaged text is none: what is missing by that is told with its row."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, (str, bytes)) or value[:1] not in ("{", b"{"):
        return None
    try:
        return _json.decode(value)
    except (ValueError, RecursionError):
        pass
    try:  # Python writes NaN, which is no JSON, and whoever wrote it does not care.
        found = json.loads(value, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


@dataclass(slots=True)
class Checked:
    """What a table holds, found by reading all of it."""

    rows: int = 0
    owners: dict[Owner, int] = field(default_factory=dict)
    """With the number, from 1 on, that stands for it in the spool."""
    first: dict[str, str | None] = field(default_factory=dict)
    """The first row as it would be stored."""


def check(made: Plan, spool: Spool | None = None, progress: Callable[[int], None] = lambda _: None) -> Checked:
    """Read every row, and keep it in ``spool``. Raises ImportRefused for the first that cannot be imported."""
    names = [item.name for item in made.target.fields]
    nobody = itertools.repeat(None)
    content = [index for index, name in enumerate(names) if name not in ("account", "symbol")]
    found = Checked()
    for columns in made.chunks():
        accounts = columns[names.index("account")] if made.target.account else nobody
        symbols = columns[names.index("symbol")] if made.target.instrument else nobody
        numbers = [
            found.owners.setdefault(owner, len(found.owners) + 1)
            for owner, _ in zip(zip(accounts, symbols, strict=False), columns[0], strict=False)
        ]
        if made.target.account and None in accounts:
            raise ImportRefused(f"{made.part.name}: rows name no account: say --account NAME")
        if spool is not None:
            spool.add(numbers, [columns[index] for index in content])
        if not found.rows:
            found.first = {name: texts[0] for name, texts in zip(names, columns, strict=True)}
        found.rows += len(numbers)
        progress(found.rows)
    return found

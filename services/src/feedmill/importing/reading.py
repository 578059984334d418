"""Rows of a table as the texts of a target's fields: pure; the first value that cannot be read ends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from feedmill.importing import ImportRefused
from feedmill.importing.mapping import Mapping, Table
from feedmill.importing.shapes import CREDENTIALS, Field, Target
from feedmill.importing.sources import Part, Row

Texts = list[str | None]
_JSON = frozenset(("json", "data", "payload", "info", "raw", "extra"))
"""Columns that may hold a JSON object, whose members count as columns."""


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
        readers: list[tuple[Field, Callable[[Row, dict[str, Any]], Any]]] = [
            (item, self._getter(item)) for item in self.target.fields
        ]
        none: dict[str, Any] = {}
        for number, row in enumerate(self.part.rows(), 1):
            members = self._members(row) if self.json_columns else none
            texts: Texts = []
            for item, get in readers:
                value = get(row, members)
                if value is None or value == "":
                    if item.needed:
                        raise ImportRefused(f"{self._place(number, item)}: is missing: {self._remedy(item)}")
                    texts.append(None)
                    continue
                try:
                    texts.append(item.read(value))
                except ValueError as error:
                    shown = "" if self.target is CREDENTIALS else f" {str(value)[:60]!r}"
                    raise ImportRefused(f"{self._place(number, item)}:{shown} {error}") from None
            yield texts

    def _getter(self, item: Field) -> Callable[[Row, dict[str, Any]], Any]:
        columns, names, constant = self.found[item.name], self.wanted[item.name], self.constants.get(item.name)

        def get(row: Row, members: dict[str, Any]) -> Any:
            for column in columns:
                if (value := row[column]) is not None:
                    return value
            for name in names if members else ():
                if (value := members.get(name)) is not None:
                    return value
            return constant

        return get

    def _members(self, row: Row) -> dict[str, Any]:
        for column in self.json_columns:
            value = row[column]
            if isinstance(value, dict):
                return {str(key).lower(): item for key, item in value.items()}
            if isinstance(value, (str, bytes)) and value[:1] in ("{", b"{"):
                try:
                    found = json.loads(value, parse_float=Decimal)
                except (ValueError, RecursionError):
                    continue  # A damaged text has no members: what is missing by that is told with its row.
                return {str(key).lower(): item for key, item in found.items()}
        return {}

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


@dataclass(slots=True)
class Checked:
    """What a table holds, found by reading all of it."""

    rows: int = 0
    accounts: set[str | None] = field(default_factory=set)
    symbols: set[tuple[str | None, str]] = field(default_factory=set)
    """(account, or None where the target has none; symbol)"""
    first: dict[str, str | None] = field(default_factory=dict)
    """The first row as it would be stored."""


def check(made: Plan, progress: Callable[[int], None] = lambda _: None) -> Checked:
    """Read every row. Raises ImportRefused for the first that cannot be imported."""
    names = [item.name for item in made.target.fields]
    account = names.index("account") if "account" in names else None
    symbol = names.index("symbol") if "symbol" in names else None
    found = Checked()
    for texts in made.rows():
        owner = texts[account] if account is not None else None
        if account is not None and owner not in found.accounts:
            if owner is None:
                raise ImportRefused(f"{made.part.name}: rows name no account: say --account NAME")
            found.accounts.add(owner)
        if symbol is not None:
            found.symbols.add((owner, str(texts[symbol])))
        if not found.rows:
            found.first = dict(zip(names, texts, strict=True))
        found.rows += 1
        if found.rows % 5000 == 0:
            progress(found.rows)
    return found

"""The mapping file: which table is what, and which of its columns is which field. Pure.

Without one, tables and columns are known by their usual names (:mod:`feedmill.importing.shapes`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import yaml

from feedmill.importing import ImportRefused
from feedmill.importing.shapes import TARGETS, Target

_TOP = ("account", "exchange", "market", "tables")
_TABLE = ("target", "fields", "values")


@dataclass(frozen=True, slots=True)
class Table:
    """How one table is read."""

    target: str = ""
    """Empty = by its name; ignore = not at all."""
    fields: dict[str, str] = field(default_factory=dict)
    """Field -> column."""
    values: dict[str, Any] = field(default_factory=dict)
    """Field -> the same value in every row."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping file. ``defaults``: account, exchange, market where a row does not say."""

    defaults: dict[str, str] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)

    def target(self, table: str) -> Target | None:
        """None = the table is not imported."""
        wanted = self.tables.get(table, Table()).target
        if wanted:
            return TARGETS.get(wanted)
        name = table.lower()
        # ohlc_1m, BTC_candles: the name's parts count where the whole is not known.
        for words in ((name,), tuple(name.split("_"))):
            for target in TARGETS.values():
                if any(word in target.tables for word in words):
                    return target
        return None

    def digest(self) -> str:
        """Changes with anything that rows are read by."""
        tables = {name: [t.target, t.fields, t.values] for name, t in self.tables.items()}
        return hashlib.sha256(json.dumps([self.defaults, tables], sort_keys=True, default=str).encode()).hexdigest()


def parse(text: str, source: str) -> Mapping:
    """Raises ImportRefused."""
    try:
        found = yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError):
        raise ImportRefused(f"{source}: is not YAML: feedmill import --help shows a mapping") from None
    _only(found, _TOP, source)
    defaults = {name: _text(found[name], f"{source}: {name}") for name in _TOP[:3] if name in found}
    tables: dict[str, Table] = {}
    for name, table in _only(found.get("tables", {}), None, f"{source}: tables").items():
        where = f"{source}: tables.{name}"
        _only(table, _TABLE, where)
        target = _text(table.get("target", ""), f"{where}.target")
        if target not in ("", "ignore", *TARGETS):
            raise ImportRefused(f"{where}.target: {target!r} is not known: write {', '.join(TARGETS)} or ignore")
        made = Table(
            target,
            {k: _text(v, f"{where}.fields.{k}") for k, v in _only(table.get("fields", {}), None, where).items()},
            dict(_only(table.get("values", {}), None, f"{where}.values")),
        )
        tables[str(name)] = made
        found_target = Mapping(tables={str(name): made}).target(str(name))
        if found_target is not None:
            known = [item.name for item in found_target.fields]
            for key in (*made.fields, *made.values):
                if key not in known:
                    raise ImportRefused(
                        f"{where}: {key!r} is no field of {found_target.name}: write {', '.join(known)}"
                    )
    return Mapping(defaults, tables)


def _only(value: Any, keys: tuple[str, ...] | None, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ImportRefused(f"{where}: is not a mapping of names: feedmill import --help shows one")
    for key in value:
        if keys is not None and key not in keys:
            raise ImportRefused(f"{where}: {key!r} is not known: write {', '.join(keys)}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ImportRefused(f"{where}: is not a text")
    return value

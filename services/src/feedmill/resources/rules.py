"""Evaluates the models' CEL rules on a manifest, as the API server does. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from feedmill.resources.base import Model, Rule
from feedmill.resources.cel_engine import compile_rule
from feedmill.resources.shape import Path, objects, properties, with_defaults


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that does not hold."""

    path: Path
    """Where the message belongs."""
    message: str


@cache
def _program(rule: str) -> Any:
    return compile_rule(rule)


def _field_path(rule: Rule) -> Path:
    return tuple(part for part in rule.field_path.split(".") if part)


def violations(model: type[Model], data: Any, broken: Collection[Path] = ()) -> Iterator[Violation]:
    """Rules of ``model`` and of all it contains that ``data`` (YAML form, without defaults) does not hold.

    ``broken``: places already found wrong; a rule that speaks of one is not asked, since it may count on the schema.
    Rules that compare with ``oldSelf`` are left to the API server.
    """
    for path, kind, value in objects(model, with_defaults(model, data)):
        if any(path[: len(place)] == place for place in broken):
            continue
        inside = [place[len(path) :] for place in broken if place[: len(path)] == path]
        for rule in kind.rules:
            if rule.transition or _speaks_of(rule.rule, kind, inside):
                continue
            if _program(rule.rule).execute({"self": value}) is not True:
                yield Violation((*path, *_field_path(rule)), rule.message)
        yield from _doubles(path, kind, value, inside)


@cache
def _named(rule: str, kind: type[Model]) -> tuple[Path, ...]:
    """The fields below ``self`` that a rule names, as far as the models know them (``self.channels.all(...)`` names
    ``channels``)."""
    found: list[Path] = []
    for text in re.findall(r"\bself((?:\.\w+)+)", rule):
        path: list[str] = []
        model: type[Model] | None = kind
        for part in text[1:].split("."):
            prop = properties(model).get(part) if model is not None else None
            if prop is None:
                break
            path.append(part)
            model = prop.shape.model
        found.append(tuple(path))
    return tuple(found)


def _speaks_of(rule: str, kind: type[Model], broken: Collection[Path]) -> bool:
    """Whether a rule of a ``kind`` names a broken place, or something in or around one."""
    for place in broken:
        # The object itself, or a key it does not have: that may be a misspelt one of those the rule asks for.
        if not place or place[0] not in properties(kind):
            return True
        if any(path[: len(place)] == place[: len(path)] for path in _named(rule, kind)):
            return True
    return False


def _doubles(path: Path, kind: type[Model], value: dict[str, Any], broken: Collection[Path]) -> Iterator[Violation]:
    """Lists declared as sets (``x-kubernetes-list-type: set``)."""
    for name, prop in properties(kind).items():
        items = value.get(name)
        if not prop.shape.constraints.get("unique") or not isinstance(items, list):
            continue
        seen: dict[Any, int] = {}
        for index, item in enumerate(items):
            if (name, index) in broken or not isinstance(item, str):
                continue
            if item in seen:
                message = f"is listed twice (first as {name}[{seen[item]}]): remove one"
                yield Violation((*path, name, index), message)
            else:
                seen[item] = index

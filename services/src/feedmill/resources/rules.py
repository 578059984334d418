"""Evaluates the models' CEL rules on a manifest, as the API server does. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import cel

from feedmill.resources.base import Model, Rule
from feedmill.resources.shape import Path, objects, properties, with_defaults


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that does not hold."""

    path: Path
    """Where the message belongs."""
    message: str


@cache
def _program(rule: str) -> cel.Program:
    return cel.compile(rule)


def _field_path(rule: Rule) -> Path:
    return tuple(part for part in rule.field_path.split(".") if part)


def violations(model: type[Model], data: Any, broken: Collection[Path] = ()) -> Iterator[Violation]:
    """Rules of ``model`` and of all it contains that ``data`` (YAML form, without defaults) does not hold.

    ``broken``: places already found wrong; an object that contains one is not asked, since its rules may count on the
    schema. Rules that compare with ``oldSelf`` are left to the API server.
    """
    for path, kind, value in objects(model, with_defaults(model, data)):
        if any(place[: len(path)] == path for place in broken):
            continue
        for rule in kind.rules:
            if rule.transition:
                continue
            if _program(rule.rule).execute({"self": value}) is not True:
                yield Violation((*path, *_field_path(rule)), rule.message)
        yield from _doubles(path, kind, value)


def _doubles(path: Path, kind: type[Model], value: dict[str, Any]) -> Iterator[Violation]:
    """Lists declared as sets (``x-kubernetes-list-type: set``)."""
    for name, prop in properties(kind).items():
        items = value.get(name)
        if not prop.shape.constraints.get("unique") or not isinstance(items, list):
            continue
        seen: dict[Any, int] = {}
        for index, item in enumerate(items):
            if item in seen:
                message = f"is listed twice (first as {name}[{seen[item]}]): remove one"
                yield Violation((*path, name, index), message)
            else:
                seen[item] = index

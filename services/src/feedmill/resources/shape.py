"""Reads the models: which fields, of which form, with which defaults. Pure; serves rules, messages, docs and CRDs."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from feedmill.resources.base import Free, Hint, Implied, Model
from feedmill.resources.types import PatternStr

Path = tuple[str | int, ...]
"""Where a value is inside a document, in its YAML names."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of one value."""

    kind: str
    """object, list, map, free, enum, pattern, string, integer, boolean."""
    model: type[Model] | None = None
    item: Shape | None = None
    """Of a list or a map."""
    choices: tuple[str, ...] = ()
    pattern_type: type[PatternStr] | None = None
    hints: tuple[str, ...] = ()
    constraints: Mapping[str, Any] = field(default_factory=dict)
    """ge, le, min_length, max_length, pattern, unique."""
    list_type: str = "atomic"
    """Of a list: atomic, set or map, as server-side apply merges it."""
    map_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Property:
    """One field of a model."""

    name: str
    """As in YAML."""
    shape: Shape
    description: str
    required: bool
    default: Any = None
    """YAML form of the default, None when there is none; ``{}`` = the object's own defaults."""
    implied: bool = False
    """The default holds in code only (see ``base.Implied``)."""


def _constraints(metadata: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _constraints(item.metadata)
            extra = item.json_schema_extra
            if isinstance(extra, dict) and "x-kubernetes-list-type" in extra:
                yield "unique", extra["x-kubernetes-list-type"] == "set"
                yield "list_type", extra["x-kubernetes-list-type"]
                yield "map_keys", tuple(str(key) for key in _items(extra.get("x-kubernetes-list-map-keys")))
            continue
        for name in ("ge", "le", "min_length", "max_length", "pattern"):
            value = getattr(item, name, None)
            if value is not None and not isinstance(item, type):
                yield name, value


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def shape_of(annotation: Any, metadata: Sequence[Any] = ()) -> Shape:
    """Form of an annotation such as ``Annotated[list[X], ...] | None``; raises TypeError for one no schema can say."""
    if annotation == Free:
        return Shape("free")
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return shape_of(inner, (*more, *metadata))
    if get_origin(annotation) in (Union, types.UnionType):
        options = [option for option in get_args(annotation) if option is not type(None)]
        if len(options) != 1:
            raise TypeError(f"{annotation} is a union, which a structural schema cannot say")
        return shape_of(options[0], metadata)
    hints = tuple(item.text for item in metadata if isinstance(item, Hint))
    constraints = dict(_constraints(metadata))
    if get_origin(annotation) is list:
        kind, keys = constraints.pop("list_type", "atomic"), constraints.pop("map_keys", ())
        item_shape = shape_of(get_args(annotation)[0])
        return Shape("list", item=item_shape, hints=hints, constraints=constraints, list_type=kind, map_keys=keys)
    if get_origin(annotation) is dict:
        value = get_args(annotation)[1]
        return Shape("free") if value is Any else Shape("map", item=shape_of(value), hints=hints)
    if get_origin(annotation) is Literal:
        return Shape("enum", choices=tuple(str(choice) for choice in get_args(annotation)), hints=hints)
    if isinstance(annotation, type):
        if issubclass(annotation, Model):
            return Shape("object", model=annotation)
        if issubclass(annotation, Enum):
            return Shape("enum", choices=tuple(str(choice.value) for choice in annotation), hints=hints)
        if issubclass(annotation, PatternStr):
            return Shape("pattern", pattern_type=annotation, hints=hints, constraints={"pattern": annotation.pattern})
        kind = {str: "string", int: "integer", bool: "boolean"}.get(annotation)
        if kind is not None:
            return Shape(kind, hints=hints, constraints=constraints)
    raise TypeError(f"{annotation} has no form in a structural schema")


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return {}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


@cache
def properties(model: type[Model]) -> Mapping[str, Property]:
    """Fields of a model by their YAML names."""
    found: dict[str, Property] = {}
    for name, info in model.model_fields.items():
        alias = info.alias or name
        extra: list[Any] = list(info.metadata)
        if isinstance(info.json_schema_extra, dict):
            extra.append(info)
        default = None
        if not info.is_required():
            value = info.get_default(call_default_factory=True, validated_data={})
            # An empty map or list as default says nothing: absent and empty are the same.
            default = None if value is PydanticUndefined or value in ({}, []) else _plain(value)
        found[alias] = Property(
            alias,
            shape_of(info.annotation, extra),
            " ".join((info.description or "").split()),
            info.is_required(),
            default,
            any(isinstance(item, Implied) for item in info.metadata),
        )
    return found


def shape_at(model: type[Model], path: Path) -> Shape | None:
    """Form of the value at ``path`` inside ``model``; None where the models know no such place."""
    shape: Shape | None = Shape("object", model=model)
    for part in path:
        if shape is None:
            return None
        if shape.kind == "object" and shape.model is not None and isinstance(part, str):
            prop = properties(shape.model).get(part)
            shape = prop.shape if prop else None
        elif shape.kind in ("list", "map"):
            shape = shape.item
        else:
            return None
    return shape


def with_defaults(model: type[Model], data: Any) -> Any:
    """``data`` (YAML form) as the API server completes it: schema defaults filled in, nothing checked."""
    if not isinstance(data, dict):
        return data
    known = properties(model)
    done = {name: value for name, value in data.items() if value is not None}
    for name, prop in known.items():
        if name not in done and prop.default is not None and not prop.implied:
            done[name] = prop.default
        if name in done:
            done[name] = _complete(prop.shape, done[name])
    # In the models' order: the text of what is completed must not tell which parts were written.
    return {name: done[name] for name in known if name in done} | done


def _complete(shape: Shape, value: Any) -> Any:
    if shape.kind == "object" and shape.model is not None:
        return with_defaults(shape.model, value)
    if shape.kind == "list" and shape.item is not None and isinstance(value, list):
        return [_complete(shape.item, item) for item in value]
    return value


def objects(model: type[Model], data: Any, path: Path = ()) -> Iterator[tuple[Path, type[Model], dict[str, Any]]]:
    """Every object inside ``data`` that a model describes, the outermost first."""
    if not isinstance(data, dict):
        return
    yield path, model, data
    for name, prop in properties(model).items():
        value = data.get(name)
        if prop.shape.kind == "object" and prop.shape.model is not None:
            yield from objects(prop.shape.model, value, (*path, name))
        elif prop.shape.kind == "list" and isinstance(value, list) and prop.shape.item and prop.shape.item.model:
            for index, item in enumerate(value):
                yield from objects(prop.shape.item.model, item, (*path, name, index))


def known_paths(model: type[Model], path: Path = ()) -> Iterator[tuple[Path, Property]]:
    """Every field below ``model``, the outermost first; a list's items are at ``[]``."""
    for name, prop in properties(model).items():
        here: Path = (*path, name)
        yield here, prop
        if prop.shape.model is not None:
            yield from known_paths(prop.shape.model, here)
        elif prop.shape.item is not None and prop.shape.item.model is not None:
            yield from known_paths(prop.shape.item.model, (*here, "[]"))


def show_path(path: Path) -> str:
    """``spec.channels[1].depth``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part == "[]":
            text += "[]"
        else:
            text += f".{part}" if text else part
    return text


def objects_of(model: type[Model], path: Path = ()) -> Iterator[tuple[Path, type[Model]]]:
    """Every place of ``model`` that holds an object with fields of its own, the outermost first."""
    yield path, model
    for name, prop in properties(model).items():
        if prop.shape.model is not None:
            yield from objects_of(prop.shape.model, (*path, name))
        elif prop.shape.item is not None and prop.shape.item.model is not None:
            yield from objects_of(prop.shape.item.model, (*path, name, "[]"))

"""One YAML document -> one checked resource, or all that is wrong with it. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from feedmill.resources.account import ExchangeAccount
from feedmill.resources.base import API_VERSION, Model
from feedmill.resources.document import Document
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.problems import Problem, choose, did_you_mean, show_value
from feedmill.resources.rules import violations
from feedmill.resources.shape import Path, Shape, known_paths, properties, shape_at, show_path
from feedmill.resources.symbols import suggest_form

Resource = ExchangeFeed | FeedPipeline | ExchangeAccount
ResourceModel = type[ExchangeFeed] | type[FeedPipeline] | type[ExchangeAccount]
MODELS: Mapping[str, ResourceModel] = {
    "ExchangeFeed": ExchangeFeed,
    "FeedPipeline": FeedPipeline,
    "ExchangeAccount": ExchangeAccount,
}
RUNS: Mapping[str, str] = {"FeedBackup": "feedmill backup run", "FeedRestore": "feedmill backup verify (or restore)"}
"""Kinds that only a cluster carries out -> the command that does the same anywhere."""
_GROUP = API_VERSION.partition("/")[0]
_SECRETS = ("url", "password", "token", "apiKey", "apiSecret", "privateKey")
"""What people write where only the reference to a Secret belongs."""
_REFERENCES = ("urlSecretRef", "botTokenSecretRef", "credentialsSecretRef")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A resource and the document it was written in."""

    resource: Resource
    document: Document


def parse_document(document: Document, *, rules: bool = True) -> tuple[Loaded | None, list[Problem]]:
    """Read one document. (None, []) = an object of another API group, such as a Secret in the same file.

    With problems there may still be a resource: what could be read, so that the rest of it is checked in the same go.
    ``rules``: evaluate the CEL rules too.
    """
    data = document.data
    if not isinstance(data, dict):
        message = f"{show_value(data)} is not a resource: write apiVersion, kind, metadata and spec"
        return None, [*document.problems, document.problem((), message)]
    kind, head = _identify(document, data)
    if kind is None:
        return None, head
    model = MODELS[kind]
    problems = list(document.problems)
    broken = [path for path in document.lines if path and _value(data, path) is None]
    # What an operator wrote, perhaps a newer one, is nobody's to check here.
    cleaned = {name: value for name, value in _without_nulls(data).items() if name != "status"}
    resource: Resource | None = None
    try:
        resource = model.model_validate(cleaned, by_alias=True, by_name=False)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path = tuple(detail["loc"])
            if detail["type"] == "missing" and path in broken:
                continue
            broken.append(path)
            problems.append(document.problem(path, _explain(model, path, detail)))
    problems.extend(
        document.problem(violation.path, _with_value(cleaned, violation.path, violation.message))
        for violation in (violations(model, cleaned, broken) if rules else ())
    )
    if resource is None:
        resource = _readable_part(model, cleaned, broken)
    return (Loaded(resource, document) if resource is not None else None), problems


def _readable_part(model: ResourceModel, data: dict[str, Any], broken: Sequence[Path]) -> Resource | None:
    """The document without what is broken in it; None when something required is."""
    part = copy.deepcopy(data)
    for path in broken:
        around, last = _value(part, path[:-1]), path[-1]
        if isinstance(around, dict):
            around.pop(last, None)
        elif isinstance(around, list) and isinstance(last, int) and last < len(around):
            around[last] = f"BROKEN-{last}"  # the others must keep their places
    try:
        return model.model_validate(part, by_alias=True, by_name=False)
    except ValidationError:
        return None


def _identify(document: Document, data: dict[str, Any]) -> tuple[str | None, list[Problem]]:
    """Kind of one of our resources, or (None, why not); (None, []) = not ours."""
    version, kind = data.get("apiVersion"), data.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        missing = "apiVersion" if not isinstance(version, str) else "kind"
        remedy = f"write {API_VERSION}" if missing == "apiVersion" else f"write one of {', '.join(MODELS)}"
        return None, [document.problem((missing,), f"is missing or not a word: {remedy}")]
    ours = kind in MODELS or kind in RUNS
    if version != API_VERSION:
        if ours or version.partition("/")[0] == _GROUP or did_you_mean(version, [API_VERSION]):
            return None, [document.problem(("apiVersion",), f"{show_value(version)} is not known: write {API_VERSION}")]
        return None, []
    if kind in RUNS:
        message = f"{kind} is for a cluster, where kubectl applies it: remove it from the files and use {RUNS[kind]}"
        return None, [document.problem(("kind",), message)]
    if kind not in MODELS:
        return None, [document.problem(("kind",), f"{show_value(kind)} is not known: {choose(kind, tuple(MODELS))}")]
    return kind, []


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _value(data: Any, path: Path) -> Any:
    for part in path:
        if isinstance(part, str) and isinstance(data, dict):
            data = data.get(part)
        elif isinstance(part, int) and isinstance(data, list) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _with_value(data: Any, path: Path, message: str) -> str:
    value = _value(data, path)
    if value is None or isinstance(value, (dict, list)):
        return message
    return f"{show_value(value, path)}{'' if message.startswith('is ') else ':'} {message}"


def _explain(model: type[Model], path: Path, detail: ErrorDetails) -> str:
    """A pydantic error as a sentence with the value and a remedy."""
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(model, path)
    shape = shape_at(model, path)
    if kind == "missing":
        return f"is missing: {_remedy(shape)}"
    value = detail["input"]
    shown = show_value(value, path)
    if shape is None:
        return f"{shown}: {detail['msg']}"
    bounds = shape.constraints
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"{shown} is out of range: write {bounds['ge']} to {bounds['le']}"
    if kind == "too_short":
        return "is empty: list at least one"
    if kind == "too_long":
        return f"holds {len(value)} items: at most {bounds.get('max_length')} are allowed"
    if shape.kind == "enum":
        return f"{shown} is not known: {choose(str(value), shape.choices)}"
    if shape.kind == "pattern" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{shown} is only a number: {_remedy(shape)}"
    if shape.kind in ("string", "pattern") and not isinstance(value, str):
        return f"{shown} is not text: {_quoted(shape, value)}"
    if path[-2:-1] == ("symbols",) and isinstance(value, str):
        return f"{shown} is not a symbol: write {suggest_form(value) or 'BASE-QUOTE, such as BTC-USDT'}"
    if shape.pattern_type is not None:
        return f"{shown} is not {shape.pattern_type.meaning}"
    wrong = "is too long" if kind == "string_too_long" else "is not of the right form or type"
    return f"{shown} {wrong}: {_remedy(shape, value)}"


def _quoted(shape: Shape, value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'put it in quotes: "{value}"'
    return _remedy(shape)


def _remedy(shape: Shape | None, value: Any = None) -> str:
    if shape is None:
        return "see docs/reference/resources.md"
    if shape.hints:
        return shape.hints[0]
    if shape.pattern_type is not None:
        return shape.pattern_type.meaning.partition(": ")[2]
    if shape.kind == "object" and shape.model is not None:
        return f"write a mapping with {', '.join(_first_keys(shape.model))}"
    if shape.kind == "enum":
        return f"write one of {', '.join(shape.choices)}"
    if shape.kind == "integer":
        without = " without quotes" if isinstance(value, str) and value.isdigit() else ""
        return f"write a whole number{without}, {shape.constraints.get('ge')} to {shape.constraints.get('le')}"
    if shape.kind == "boolean":
        return "write true or false, without quotes"
    if shape.kind == "list":
        return "write a list: [a, b], or one '- item' a line"
    if shape.kind in ("map", "free"):
        return "write a mapping (key: value)"
    pattern = shape.constraints.get("pattern")
    return f"it must match {pattern}" if pattern else "write some text"


def _first_keys(model: type[Model]) -> list[str]:
    known = properties(model)
    return [name for name, prop in known.items() if prop.required] or list(known)


def _unknown_key(model: type[Model], path: Path) -> str:
    key = str(path[-1])
    around = shape_at(model, path[:-1])
    names = list(properties(around.model)) if around is not None and around.model is not None else []
    camel = to_camel(key) if "_" in key else key
    near = did_you_mean(camel, names)
    if near:
        return f'unknown key "{key}": did you mean {near}?'
    reference = next((name for name in _REFERENCES if name in names), None)
    if key in _SECRETS and reference is not None:
        return f'unknown key "{key}": secrets stay out of manifests, put it into a Secret and name that in {reference}'
    for place, prop in known_paths(model):
        if prop.name == camel and "metadata" not in place and "podTemplate" not in place:
            return f'unknown key "{key}": did you mean {show_path(place)}?'
    return f'unknown key "{key}": remove it (known here: {", ".join(names)})'

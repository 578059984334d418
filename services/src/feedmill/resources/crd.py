"""The models as CustomResourceDefinitions: structural schemas, defaults, CEL rules, columns. Pure.

``feedmill docs`` writes them to ``crds/`` and into the chart; the API server then checks what local mode checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feedmill.resources.account import ExchangeAccount
from feedmill.resources.backup import FeedBackup, FeedRestore
from feedmill.resources.base import API_VERSION, NAME_LENGTH, RUN_NAME_LENGTH, Model, ObjectMeta, Rule
from feedmill.resources.common import ResourceQuantity
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.shape import Property, Shape, objects_of, properties, shape_of, with_defaults

GROUP, VERSION = API_VERSION.split("/")
CATEGORY = "feedmill"
_QUANTITY = shape_of(ResourceQuantity).constraints["pattern"]
_SCALAR_LENGTH = 64
"""Longest text of a duration or size; CEL estimates the cost of a rule by it."""
_TEXT_LENGTH = 253
"""Longest text where the model names no bound."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``; ``wide`` ones need ``-o wide``."""

    name: str
    path: str
    kind: str = "string"
    wide: bool = False
    description: str = ""

    def entry(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"name": self.name, "type": self.kind, "jsonPath": self.path}
        if self.description:
            shown["description"] = self.description
        if self.wide:
            shown["priority"] = 1
        return shown


def _condition(name: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{name}")].{field}'


_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_READY = Column("Ready", _condition("Ready"))
_REASON = Column("Reason", _condition("Ready", "reason"), description="Why it is ready or not, in a word.")
_MESSAGE = Column("Message", _condition("Ready", "message"), wide=True)
_PHASE = Column("Status", ".status.phase")
_COMPLETED = Column("Completed", ".status.completedAt", "date", description="How long ago it ended.")
_PROGRESS = Column("Progress", ".status.progress", "integer", wide=True, description="Percent done.")
_SAID = Column("Message", ".status.message", wide=True)


@dataclass(frozen=True, slots=True)
class Kind:
    """One custom resource: its model and how ``kubectl`` knows it."""

    model: type[Model]
    plural: str
    short: str
    columns: tuple[Column, ...]
    scale: Mapping[str, str] | None = None
    name_length: int = NAME_LENGTH

    @property
    def name(self) -> str:
        return self.model.__name__

    @property
    def crd_name(self) -> str:
        return f"{self.plural}.{GROUP}"


KINDS: tuple[Kind, ...] = (
    Kind(
        ExchangeFeed,
        "exchangefeeds",
        "xf",
        (
            Column("Exchange", ".spec.exchange.name"),
            Column("Market", ".spec.exchange.market"),
            _READY,
            _REASON,
            Column("Data", ".status.data"),
            Column("Lag", ".status.lag"),
            Column("Pipeline", ".spec.pipelineRef.name", wide=True),
            Column("Config", ".status.config.acknowledged", "integer", wide=True),
            _MESSAGE,
            _AGE,
        ),
    ),
    Kind(
        FeedPipeline,
        "feedpipelines",
        "fpl",
        (
            _READY,
            _REASON,
            Column("Processors", ".status.processor.ready", "integer"),
            Column("Feeds", ".status.feeds", "integer"),
            Column("Lag", ".status.lag"),
            Column("Backup", ".status.backup.lastSuccess", "date", description="How long ago the last good one was."),
            Column("Image", ".status.image", wide=True),
            _MESSAGE,
            _AGE,
        ),
        {
            "specReplicasPath": ".spec.processor.replicas",
            "statusReplicasPath": ".status.processor.replicas",
            "labelSelectorPath": ".status.processor.selector",
        },
    ),
    Kind(
        ExchangeAccount,
        "exchangeaccounts",
        "xa",
        (
            Column("Exchange", ".spec.exchange.name"),
            Column("Market", ".spec.exchange.market"),
            _READY,
            _REASON,
            Column("State", ".status.state"),
            Column("Fill", ".status.lastFill", "date", description="How long ago the newest stored fill was."),
            Column("Pipeline", ".spec.pipelineRef.name", wide=True),
            _MESSAGE,
            _AGE,
        ),
    ),
    Kind(
        FeedBackup,
        "feedbackups",
        "fbk",
        (
            Column("Pipeline", ".spec.pipelineRef.name"),
            Column("Kind", ".spec.kind"),
            _PHASE,
            Column("Size", ".status.size"),
            _COMPLETED,
            _PROGRESS,
            Column("Backup", ".status.backupId", wide=True),
            _SAID,
            _AGE,
        ),
        name_length=RUN_NAME_LENGTH,
    ),
    Kind(
        FeedRestore,
        "feedrestores",
        "frs",
        (
            Column("Pipeline", ".spec.pipelineRef.name"),
            Column("Mode", ".spec.mode"),
            _PHASE,
            Column("To", ".status.restoredTo", description="The moment up to which it was restored (UTC)."),
            _COMPLETED,
            _PROGRESS,
            Column("Backup", ".status.backupId", wide=True),
            _SAID,
            _AGE,
        ),
        name_length=RUN_NAME_LENGTH,
    ),
)


def crds() -> dict[str, dict[str, Any]]:
    """File name -> CustomResourceDefinition, one a kind."""
    return {f"{kind.plural}.yaml": crd(kind) for kind in KINDS}


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    subresources: dict[str, Any] = {"status": {}}
    if kind.scale:
        subresources["scale"] = dict(kind.scale)
    singular = kind.name.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": singular,
                "shortNames": [kind.short],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root(kind)},
                    "subresources": subresources,
                    "additionalPrinterColumns": [column.entry() for column in kind.columns],
                }
            ],
        },
    }


def _root(kind: Kind) -> dict[str, Any]:
    schema = _object(kind.model)
    inside: dict[str, Any] = schema["properties"]
    # The server knows these three; of metadata a schema may only bound the name.
    for name in ("apiVersion", "kind"):
        inside[name] = {"type": "string", "description": properties(kind.model)[name].description}
    inside["metadata"] = {"type": "object", "properties": {"name": {"type": "string", "maxLength": kind.name_length}}}
    schema["required"] = ["spec"]
    return schema


def _object(model: type[Model]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "description": _text(model.__doc__ or "")}
    own = {name: prop for name, prop in properties(model).items() if prop.shape.model is not ObjectMeta}
    schema["properties"] = {name: _property(prop) for name, prop in own.items()}
    if required := [name for name, prop in own.items() if prop.required]:
        schema["required"] = required
    if model.rules:
        schema["x-kubernetes-validations"] = [_rule(rule) for rule in model.rules]
    return schema


def _property(prop: Property) -> dict[str, Any]:
    schema = _value(prop.shape)
    if prop.description:
        schema = {"description": prop.description} | {k: v for k, v in schema.items() if k != "description"}
    if prop.default is not None and not prop.implied:
        # A rule is tried on the default as it stands, without the defaults inside it.
        model = prop.shape.model
        whole = model is not None and any(kind.rules for _, kind in objects_of(model))
        schema["default"] = with_defaults(model, prop.default) if model is not None and whole else prop.default
    return schema


def _value(shape: Shape) -> dict[str, Any]:
    limits = shape.constraints
    if shape.kind == "object":
        assert shape.model is not None
        return _object(shape.model)
    if shape.kind == "free":
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if shape.kind == "map":
        assert shape.item is not None
        return {"type": "object", "additionalProperties": _value(shape.item)}
    if shape.kind == "list":
        return _list(shape)
    if shape.kind == "enum":
        return {"type": "string", "enum": list(shape.choices)}
    if shape.kind == "boolean":
        return {"type": "boolean"}
    if shape.kind == "integer":
        return {"type": "integer", "format": "int64", "minimum": limits["ge"], "maximum": limits["le"]}
    if limits.get("pattern") == _QUANTITY:
        return {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}],
                "pattern": _QUANTITY, "maxLength": _SCALAR_LENGTH}  # fmt: skip
    schema: dict[str, Any] = {"type": "string"}
    if "min_length" in limits:
        schema["minLength"] = limits["min_length"]
    default = _SCALAR_LENGTH if shape.kind == "pattern" else _TEXT_LENGTH
    schema["maxLength"] = limits.get("max_length", default)
    if pattern := limits.get("pattern"):
        schema["pattern"] = pattern
    return schema


def _list(shape: Shape) -> dict[str, Any]:
    assert shape.item is not None
    limits = shape.constraints
    schema: dict[str, Any] = {"type": "array", "items": _value(shape.item)}
    if "min_length" in limits:
        schema["minItems"] = limits["min_length"]
    if "max_length" in limits:
        schema["maxItems"] = limits["max_length"]
    schema["x-kubernetes-list-type"] = shape.list_type
    if shape.map_keys:
        schema["x-kubernetes-list-map-keys"] = list(shape.map_keys)
    return schema


def _rule(rule: Rule) -> dict[str, Any]:
    entry = {"rule": rule.rule, "message": rule.message}
    if rule.field_path:
        entry["fieldPath"] = rule.field_path
    return entry


def _text(text: str) -> str:
    return " ".join(text.split())

"""What every resource model is made of: strict YAML names, descriptions from docstrings, rules as CEL text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, Strict, WithJsonSchema
from pydantic.alias_generators import to_camel

API_VERSION = "feedmill.dev/v1alpha1"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``x-kubernetes-validations``: the API server and local mode evaluate the same text.

    ``self`` is the object of the model that carries the rule, in its YAML form with defaults filled in.
    """

    rule: str
    message: str
    field_path: str = ""
    """Field the message belongs to, relative to ``self`` (``.depth``); empty = the object."""
    transition: bool = False
    """Compares with ``oldSelf``: only the API server, which knows the former object, can evaluate it."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Annotated metadata: what to write instead, shown when a value is refused."""

    text: str


@dataclass(frozen=True, slots=True)
class Implied:
    """Annotated metadata: the default holds in code only and is not filled in by the schema.

    For fields that only some objects may carry, so that a rule can ask ``has(self.field)``.
    """


class Model(BaseModel):
    """Base of all resource models: immutable, camelCase in YAML, unknown keys refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        regex_engine="rust-regex",
    )

    rules: ClassVar[tuple[Rule, ...]] = ()


Integer = Annotated[int, Strict()]
Boolean = Annotated[bool, Strict()]
Free = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
"""An object of Kubernetes itself, passed on as it is."""

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
KEY_OF_SECRET = r"^[-._a-zA-Z0-9]{1,253}$"  # noqa: S105 - a pattern

Label = Annotated[
    str,
    Field(pattern=DNS_LABEL),
    Hint("write at most 63 lower-case letters, digits or '-', with a letter or digit at both ends"),
]

NAME_LENGTH = 40
"""Longest name of an object: it becomes part of the names of pods and streams."""
RUN_NAME_LENGTH = 56
"""Longest name of a run (FeedBackup, FeedRestore): those of a schedule are named after the CronJob and the time."""

NAME_RULE = Rule(
    f"self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{{0,{NAME_LENGTH - 2}}}[a-z0-9])?$')",
    f"the name must be 1 to {NAME_LENGTH} lower-case letters, digits or '-', without a dot, since it becomes part of "
    "the names of pods and streams",
    ".metadata.name",
)
RUN_NAME_RULE = Rule(
    f"self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{{0,{RUN_NAME_LENGTH - 2}}}[a-z0-9])?$')",
    f"the name must be 1 to {RUN_NAME_LENGTH} lower-case letters, digits or '-', without a dot, since it becomes part "
    "of the names of a Job and its pods",
    ".metadata.name",
)


SET_BY_SERVER = "Set by the API server."
"""Description of the fields of ObjectMeta that are not for people to write."""


class ObjectMeta(Model):
    """Name and labels of a resource. What the API server adds is accepted and not used."""

    name: Annotated[str, Field(min_length=1, max_length=253), Hint("write a name, such as binance-spot")]
    """Name, unique per kind and namespace: at most 40 lower-case letters, digits or `-`."""
    namespace: Label = "default"
    """Namespace. References are resolved in it."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of your own."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of your own."""
    uid: str | None = None
    """Set by the API server."""
    resource_version: str | None = None
    """Set by the API server."""
    generation: int | None = None
    """Set by the API server."""
    generate_name: str | None = None
    """Set by the API server."""
    creation_timestamp: str | None = None
    """Set by the API server."""
    deletion_timestamp: str | None = None
    """Set by the API server."""
    deletion_grace_period_seconds: int | None = None
    """Set by the API server."""
    finalizers: list[str] = Field(default_factory=list)
    """Set by the API server."""
    owner_references: list[Free] = Field(default_factory=list)
    """Set by the API server."""
    managed_fields: list[Free] = Field(default_factory=list)
    """Set by the API server."""
    self_link: str | None = None
    """Set by the API server."""

"""CPU and memory of containers: our defaults, overridden by the user key by key."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from feedmill.resources.common import ResourceRequirements
from feedmill_operator.build.inputs import Manifest

_POWERS = "kMGTP"
_UNITS: Mapping[str, Decimal] = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(_POWERS, 1)},
    **{f"{unit.upper()}i": Decimal(1024) ** power for power, unit in enumerate(_POWERS, 1)},
}


def merged(defaults: Mapping[str, Mapping[str, str]], given: ResourceRequirements | None) -> Manifest:
    """``resources`` of a container. A default gives way to what the user wrote: a request of ours is lowered to his
    limit, a limit of ours is raised to his request, since the API server refuses a request above its limit."""
    asked, capped = (given.requests, given.limits) if given is not None else ({}, {})
    requests = {
        name: min(value, capped[name], key=_number) if name in capped else value
        for name, value in defaults.get("requests", {}).items()
    } | dict(asked)
    limits = {
        name: max(value, asked[name], key=_number) if name in asked else value
        for name, value in defaults.get("limits", {}).items()
    } | dict(capped)
    return {kind: values for kind, values in (("requests", requests), ("limits", limits)) if values}


def _number(quantity: str) -> Decimal:
    digits = quantity.rstrip("".join(_POWERS) + "Kim")
    return Decimal(digits) * _UNITS[quantity[len(digits) :]]

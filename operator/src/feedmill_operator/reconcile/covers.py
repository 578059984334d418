"""Whether an object of the cluster already is what we want: ours is found in it, whatever the server added. Pure.

The API server fills in defaults, writes quantities in its own way and keeps what others wrote; none of that is drift.
What is ours and reads differently is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
}
"""Lists whose items are found by a key, as server-side apply merges them; all others are compared in order.

``ports`` is one too, but its keys differ from kind to kind and the server keeps the order, so order is compared.
"""
_DROPPED = frozenset(
    {"labels", "annotations", "matchLabels", "nodeSelector", "data", "stringData", "limits", "requests", "env"}
)
"""Maps the server does not store when they are empty."""
_UNITS: Mapping[str, Decimal] = {
    "": Decimal(1),
    **{unit: Decimal(f"1e{power}") for unit, power in zip("num", (-9, -6, -3), strict=True)},
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
_QUANTITIES = frozenset({"limits", "requests"})
"""Maps of quantities."""
_QUANTITY = frozenset({"sizeLimit", "divisor", "storage", "memory", "cpu"})
"""Fields that are one."""


def covers(live: Mapping[str, Any], desired: Mapping[str, Any]) -> bool:
    """Whether everything in ``desired`` stands in ``live``, of the same meaning."""
    return difference(live, desired) is None


def difference(live: Any, desired: Any, *, path: str = "") -> str | None:
    """Path of the first thing that ``live`` lacks or has otherwise (``spec.template.spec.containers[receiver].image``);
    None = nothing."""
    if isinstance(desired, Mapping):
        return _mapping(live, desired, path)
    if isinstance(desired, Sequence) and not isinstance(desired, (str, bytes)):
        return _list(live, desired, path)
    return None if _same(live, desired, path) else path or "."


def _mapping(live: Any, desired: Mapping[str, Any], path: str) -> str | None:
    if not isinstance(live, Mapping):
        return path or "."
    for key, wanted in desired.items():
        inside = f"{path}.{key}" if path else str(key)
        if key not in live:
            if not _absent(key, wanted):
                return inside
            continue
        found = difference(live[key], wanted, path=inside)
        if found is not None:
            return found
    return None


def _absent(key: str, wanted: Any) -> bool:
    """Whether the server stores nothing at all for this value."""
    if wanted is None:
        return True
    if isinstance(wanted, Mapping):
        return not wanted and key in _DROPPED
    return isinstance(wanted, (list, tuple)) and not wanted


def _list(live: Any, desired: Sequence[Any], path: str) -> str | None:
    if not isinstance(live, Sequence) or isinstance(live, (str, bytes)) or len(live) != len(desired):
        return path or "."
    keys = MERGE_KEYS.get(path.rpartition(".")[2])
    if keys is not None and all(isinstance(item, Mapping) for item in (*live, *desired)):
        by_key = {tuple(item.get(key) for key in keys): item for item in live}
        for item in desired:
            name = tuple(item.get(key) for key in keys)
            inside = f"{path}[{name[0]}]"
            if name not in by_key:
                return inside
            found = difference(by_key[name], item, path=inside)
            if found is not None:
                return found
        return None
    for index, (have, want) in enumerate(zip(live, desired, strict=True)):
        found = difference(have, want, path=f"{path}[{index}]")
        if found is not None:
            return found
    return None


def _same(live: Any, desired: Any, path: str) -> bool:
    if isinstance(live, bool) or isinstance(desired, bool):
        return live is desired
    if live == desired:
        return True
    parent, _, last = path.rpartition(".")
    if last in _QUANTITY or parent.rpartition(".")[2] in _QUANTITIES:
        have, want = quantity(live), quantity(desired)
        return have is not None and have == want
    # An int-or-string: the server keeps the form it was given, a template may have written the other.
    if isinstance(live, (int, str)) and isinstance(desired, (int, str)):
        return str(live) == str(desired)
    return False


def quantity(value: Any) -> Decimal | None:
    """A Kubernetes quantity as a number; None when it is none."""
    text = str(value)
    digits = text.rstrip("numkKMGTPEi")
    unit = _UNITS.get(text[len(digits) :])
    if unit is None:
        return None
    try:
        number = Decimal(digits)
    except InvalidOperation:
        return None
    return number * unit if number.is_finite() else None

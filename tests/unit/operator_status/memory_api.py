"""An API server in memory, as far as reconcilers need one: versions, generations, managers, a log of what was asked.

Apply merges like server-side apply does where it matters here: what our last apply set and this one does not is gone,
what others set stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from feedmill_operator.kube.api import ApiError, Kind, Manifest
from feedmill_operator.names import FIELD_MANAGER

_CONTENT = ("spec", "data", "rules")


class MemoryApi:
    """``fail``: (verb, name) -> errors to raise, first to last. ``tell``: hears of each change, as a watch does."""

    def __init__(self) -> None:
        self.tell: Callable[[Kind, str, Manifest], None] = lambda kind, change, obj: None
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.fail: dict[tuple[str, str], list[ApiError]] = {}
        self._version = 0

    # What tests do.

    def edit(self, kind: Kind, name: str, change: Any, manager: str = "kubectl-edit") -> Manifest:
        """As a person does it, under his own manager."""
        found = copy.deepcopy(self.objects[kind.kind, "ns", name])
        change(found)
        return self._store(kind, found, manager, "Update")

    def calls(self, *verbs: str) -> list[str]:
        """What was asked, of these verbs, as "verb Kind name"."""
        return [f"{verb} {kind} {name}" for verb, kind, name in self.asked if not verbs or verb in verbs]

    # The protocol.

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        self._ask("get", kind, name)
        found = self.objects.get((kind.kind, namespace or "", name))
        return copy.deepcopy(found)

    async def apply(self, kind: Kind, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        name = manifest["metadata"]["name"]
        self._ask("apply", kind, name)
        before = self.objects.get((kind.kind, manifest["metadata"]["namespace"], name))
        if before is None:
            return self._store(kind, copy.deepcopy(manifest), FIELD_MANAGER, "Apply")
        merged = copy.deepcopy(before)
        last = before["metadata"].get("_applied", {})
        for part in (*_CONTENT, "automountServiceAccountToken"):
            if part in manifest or part in last:
                merged[part] = _merge(merged.get(part), last.get(part), manifest.get(part))
        for part in ("labels", "annotations", "ownerReferences"):
            if part in manifest["metadata"]:
                merged["metadata"][part] = _merge(
                    merged["metadata"].get(part), None, copy.deepcopy(manifest["metadata"][part])
                )
        merged["metadata"]["_applied"] = {part: copy.deepcopy(manifest.get(part)) for part in _CONTENT}
        return self._store(kind, merged, FIELD_MANAGER, "Apply")

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        name = manifest["metadata"]["name"]
        self._ask("replace", kind, name)
        before = self.objects[kind.kind, manifest["metadata"]["namespace"], name]
        if manifest["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        done = copy.deepcopy(manifest)
        done["status"] = before.get("status", {})
        for part in ("generation", "managedFields", "_applied"):
            done["metadata"][part] = copy.deepcopy(before["metadata"].get(part))
        if done["metadata"]["managedFields"]:
            done["metadata"]["managedFields"] = [
                entry for entry in done["metadata"]["managedFields"] if entry["manager"] == FIELD_MANAGER
            ]
        return self._store(kind, done, FIELD_MANAGER, "Update")

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        name = manifest["metadata"]["name"]
        self._ask("create", kind, name)
        if (kind.kind, manifest["metadata"]["namespace"], name) in self.objects:
            raise ApiError(409, "AlreadyExists", f"{name} already exists")
        return self._store(kind, copy.deepcopy(manifest), FIELD_MANAGER, "Update")

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Manifest:
        self._ask("patch", kind, name)
        found = self.objects.get((kind.kind, namespace or "", name))
        if found is None:
            raise ApiError(404, "NotFound", f"{name} not found")
        return self._store(kind, _json_merge(copy.deepcopy(found), body), FIELD_MANAGER, "Update")

    async def patch_status(self, kind: Kind, namespace: str, name: str, body: Mapping[str, Any]) -> Manifest:
        self._ask("status", kind, name)
        found = self.objects.get((kind.kind, namespace, name))
        if found is None:
            raise ApiError(404, "NotFound", f"{name} not found")
        done = copy.deepcopy(found)
        done["status"] = _json_merge(done.get("status") or {}, body["status"])
        return self._store(kind, done, "", "")

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None, propagation: str = "Background"
    ) -> bool:
        self._ask(f"delete-{propagation}", kind, name)
        found = self.objects.get((kind.kind, namespace or "", name))
        if found is None:
            return False
        if uid is not None and found["metadata"].get("uid") != uid:
            raise ApiError(409, "Conflict", f"the UID in the precondition ({uid}) is not that of {name}")
        del self.objects[kind.kind, namespace or "", name]
        self.tell(kind, "DELETED", copy.deepcopy(found))
        return True

    def _ask(self, verb: str, kind: Kind, name: str) -> None:
        self.asked.append((verb, kind.kind, name))
        errors = self.fail.get((verb, name))
        if errors:
            raise errors.pop(0)

    def _store(self, kind: Kind, obj: Manifest, manager: str, operation: str) -> Manifest:
        metadata = obj["metadata"]
        place = (kind.kind, metadata["namespace"], metadata["name"])
        before = self.objects.get(place)
        content = {part: obj.get(part) for part in (*_CONTENT, "automountServiceAccountToken")}
        changed = before is None or content != {part: before.get(part) for part in content}
        if before is not None and not changed and _visible(before) == _visible(obj):
            return copy.deepcopy(before)
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", f"uid-{self._version}")
        if "spec" in obj:
            metadata["generation"] = int(metadata.get("generation") or 0) + (1 if changed else 0)
        if operation == "Apply" and before is None:
            metadata["_applied"] = {part: copy.deepcopy(obj.get(part)) for part in _CONTENT}
        if manager and changed:
            entries = [
                entry for entry in metadata.get("managedFields") or []
                if (entry["manager"], entry["operation"]) != (manager, operation)
            ]  # fmt: skip
            owned = {f"f:{part}": {"f:x": {}} for part in _CONTENT if part in obj}
            metadata["managedFields"] = [*entries, {"manager": manager, "operation": operation, "fieldsV1": owned}]
        self.objects[place] = obj
        self.tell(kind, "ADDED" if before is None else "MODIFIED", copy.deepcopy(obj))
        return copy.deepcopy(obj)


def _visible(obj: Manifest) -> dict[str, Any]:
    metadata = {
        key: value for key, value in obj["metadata"].items() if key in ("labels", "annotations", "ownerReferences")
    }
    return {"metadata": metadata, "status": obj.get("status") or {}}


def _merge(have: Any, last: Any, want: Any) -> Any:
    if isinstance(have, dict) and isinstance(want, dict):
        gone = set(last or ()) - set(want) if isinstance(last, dict) else set()
        done = {key: value for key, value in have.items() if key not in gone}
        for key, value in want.items():
            done[key] = _merge(done.get(key), last.get(key) if isinstance(last, dict) else None, value)
        return done
    return copy.deepcopy(want)


def _json_merge(have: Any, patch: Mapping[str, Any]) -> Any:
    for key, value in patch.items():
        if value is None:
            have.pop(key, None)
        elif isinstance(value, dict):
            have[key] = _json_merge(dict(have.get(key) or {}), value)
        else:
            have[key] = copy.deepcopy(value)
    return have

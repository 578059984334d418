"""Brings one object of the cluster to its manifest: nothing when it is so already, server-side apply, or a replacement.

* Nothing: what is wanted is found in what is there, nobody else wrote into it, and it is what was wanted last time
  (a hash in an annotation tells, so that a field no longer wanted is noticed after a restart too).
* Server-side apply, forced, when something of ours differs.
* A replacement when somebody else added to the content: an apply would leave that in place.
"""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from feedmill.shared import log
from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Kind, KubeApi, Manifest
from feedmill_operator.reconcile.covers import difference, quantity
from feedmill_operator.reconcile.pods import PodFacts
from feedmill_operator.reconcile.reasons import Reason
from feedmill_operator.reconcile.store import Live, Ref, Store
from feedmill_operator.reconcile.troubles import Trouble

_TRIES = 3
"""Of a replacement that meets newer versions."""
_SWEEP = 1000
"""Writes until what is remembered of objects that are gone is forgotten."""
_RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
_CARRIED: Mapping[Kind, tuple[str, ...]] = {
    kinds.SERVICE: ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"),
    kinds.JOB: ("selector", "manualSelector", "template", "completionMode"),
    kinds.STATEFUL_SET: ("volumeClaimTemplates",),
}
"""Fields of the spec that a replacement must give as they are, where the manifest does not name them or may not change
them."""


class Outcome(Enum):
    """What was done."""

    NOTHING = "nothing"
    CREATED = "created"
    CHANGED = "changed"
    """The manifest is another than last time."""
    UNDONE = "undone"
    """The manifest is the same as last time, the object was not."""


class Refused(Exception):
    """The API server will not take the object; somebody has to change something."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble


@dataclass(frozen=True, slots=True)
class _Done:
    """The last time an object was brought to a manifest."""

    desired: str
    resource_version: str
    generation: int


class Applier:
    """Remembers what it did, so that what was looked at once is not looked at again."""

    def __init__(self, api: KubeApi, store: Store[PodFacts]) -> None:
        self._api = api
        self._store = store
        self._done: dict[Ref, _Done] = {}
        self._writes = 0
        self._log = log.get_logger()

    def forget(self, ref: Ref) -> None:
        """The object is gone."""
        self._done.pop(ref, None)

    async def apply(self, manifest: Mapping[str, Any]) -> Outcome:
        """Raises Refused, or ApiError for what may go better next time."""
        kind = kinds.kind_of(dict(manifest))
        desired = marked(manifest)
        metadata = desired["metadata"]
        ref = Ref(kind, str(metadata["namespace"]), str(metadata["name"]))
        live = self._store.get(*ref)
        digest = metadata["annotations"][names.DESIRED]
        done = self._done.get(ref)
        if live is None:
            stored = await self._write(kind, desired, None)
            self._remember(ref, digest, stored)
            return Outcome.CREATED
        if live.deleting:
            # It is made again once it is gone; the watch tells.
            return Outcome.NOTHING
        if done is not None and done.desired == digest and _seen(done, live):
            return Outcome.NOTHING
        have = live.manifest
        differs = _difference(kind, have, desired)
        if differs is None and (kind == kinds.SECRET or not live.foreign):
            self._done[ref] = _Done(digest, live.resource_version, live.generation)
            return Outcome.NOTHING
        same = (have["metadata"].get("annotations") or {}).get(names.DESIRED) == digest
        stored = await self._write(kind, desired, live)
        self._remember(ref, digest, stored)
        if str(stored["metadata"].get("resourceVersion")) == live.resource_version:
            return Outcome.NOTHING
        if same:
            self._log.info(
                "drift.undone",
                kind=kind.kind,
                namespace=ref.namespace,
                name=ref.name,
                field=differs or "added by others",
            )
        return Outcome.UNDONE if same else Outcome.CHANGED

    def _remember(self, ref: Ref, digest: str, stored: Mapping[str, Any]) -> None:
        self._writes += 1
        if self._writes % _SWEEP == 0:
            self._done = {each: done for each, done in self._done.items() if self._store.get(*each) is not None}
        live = self._store.update(ref.kind, stored)
        self._done[ref] = _Done(digest, live.resource_version, live.generation)

    async def _write(self, kind: Kind, desired: Manifest, live: Live | None) -> Manifest:
        name = f"{kind.kind} {desired['metadata']['name']}"
        try:
            if live is None:
                return await self._make(kind, desired)
            if kind == kinds.SECRET or live.foreign or live.replaced:
                return await self._replace(kind, desired, live)
            return await self._api.apply(kind, desired)
        except ApiError as error:
            if error.status == 422 and live is not None and kind in (kinds.JOB, kinds.STATEFUL_SET):
                return await self._again(kind, desired, live)
            if error.status in (403, 422):
                raise Refused(_trouble(name, desired, error)) from error
            if error.status == 404 and live is None:
                message = f"{name} cannot be made: {error.message or 'not found'}: is its kind known to the cluster?"
                raise Refused(Trouble(Reason.OBJECT_REFUSED, message)) from error
            if error.status in (404, 409):
                await self._refresh(kind, desired)
            raise

    async def _replace(self, kind: Kind, desired: Manifest, live: Live) -> Manifest:
        """Statuses are written all the time while something rolls; that is no conflict of ours. A Secret is different:
        what to write depends on what is there."""
        for _ in range(_TRIES):
            try:
                return await self._api.replace(kind, replacement(kind, live, desired))
            except ApiError as error:
                if error.status != 409 or kind == kinds.SECRET:
                    raise
                await self._refresh(kind, desired)
                known = self._store.get(*live.ref)
                if known is None or known.uid != live.uid or known.deleting:
                    raise
                live = known
        return await self._api.replace(kind, replacement(kind, live, desired))

    async def _make(self, kind: Kind, desired: Manifest) -> Manifest:
        # A Secret holds a password: made by somebody else in the meantime, it must not be written over.
        if kind == kinds.SECRET:
            return await self._api.create(kind, desired)
        return await self._api.apply(kind, desired)

    async def _refresh(self, kind: Kind, desired: Manifest) -> None:
        """What is kept of the object is out of date."""
        namespace, name = str(desired["metadata"]["namespace"]), str(desired["metadata"]["name"])
        found = await self._api.get(kind, namespace, name)
        if found is None:
            self._store.remove(kind, namespace, name)
        else:
            self._store.update(kind, found)

    async def _again(self, kind: Kind, desired: Manifest, live: Live) -> Manifest:
        """Immutable fields differ. A Job is run again; a StatefulSet is made anew around its pods and volumes."""
        if kind == kinds.STATEFUL_SET:
            await self._grow_volumes(desired)
        propagation = "Orphan" if kind == kinds.STATEFUL_SET else "Background"
        self._log.info("object.remade", kind=kind.kind, namespace=live.namespace, name=live.name)
        await self._api.delete(kind, live.namespace, live.name, uid=live.uid, propagation=propagation)
        self._store.remove(kind, live.namespace, live.name, live.uid)
        self.forget(live.ref)
        try:
            return await self._api.apply(kind, desired)
        except ApiError as error:
            if error.status not in (409, 422):
                raise
            # Still on its way out (its pods are being let go): once it is gone, the watch tells.
            raise ApiError(409, "Conflict", f"{live.name} is being deleted to be made anew") from error

    async def _grow_volumes(self, desired: Manifest) -> None:
        """A claim's template is immutable, the claim is not: it may grow where its StorageClass allows that."""
        namespace, name = str(desired["metadata"]["namespace"]), str(desired["metadata"]["name"])
        for template in desired["spec"].get("volumeClaimTemplates") or ():
            wanted = template["spec"]["resources"]["requests"]["storage"]
            for number in range(int(desired["spec"].get("replicas", 1))):
                claim = f"{template['metadata']['name']}-{name}-{number}"
                found = await self._api.get(kinds.PVC, namespace, claim)
                if found is None or not _larger(wanted, found["spec"]["resources"]["requests"].get("storage", "0")):
                    continue
                body = {"spec": {"resources": {"requests": {"storage": wanted}}}}
                try:
                    await self._api.patch(kinds.PVC, namespace, claim, body)
                except ApiError as error:
                    if error.status not in (403, 422):
                        raise
                    raise Refused(
                        Trouble(
                            Reason.OBJECT_REFUSED,
                            f"volume {claim} cannot grow to {wanted}: {error.message}: its StorageClass must allow it "
                            "(allowVolumeExpansion)",
                        )
                    ) from error


def marked(manifest: Mapping[str, Any]) -> Manifest:
    """A copy that carries its own hash; texts of a Secret in the form in which they are stored."""
    done: Manifest = copy.deepcopy(dict(manifest))
    texts = done.pop("stringData", None)
    if texts:
        encoded = {key: base64.b64encode(str(text).encode()).decode() for key, text in texts.items()}
        done["data"] = {**(done.get("data") or {}), **encoded}
    digest = hashlib.sha256(msgspec.json.encode(done, order="deterministic")).hexdigest()[:16]
    done["metadata"].setdefault("annotations", {})[names.DESIRED] = digest
    return done


def replacement(kind: Kind, live: Live, desired: Manifest) -> Manifest:
    """``desired`` as a whole new content of ``live``: what the cluster itself has filled in stays, and so do labels and
    annotations of others."""
    have = live.manifest
    done: Manifest = copy.deepcopy(desired)
    metadata = done["metadata"]
    metadata["resourceVersion"] = live.resource_version
    metadata["uid"] = live.uid
    for name in ("labels", "annotations"):
        metadata[name] = {**(have["metadata"].get(name) or {}), **(metadata.get(name) or {})}
    if have["metadata"].get("finalizers"):
        metadata["finalizers"] = have["metadata"]["finalizers"]
    for field in _CARRIED.get(kind, ()):
        if field not in have["spec"]:
            continue
        wanted = done["spec"].get(field)
        # Of what is immutable even the server's own additions must be given again.
        if wanted is None or kind == kinds.JOB or difference(have["spec"][field], wanted) is None:
            done["spec"][field] = have["spec"][field]
    if kind == kinds.SERVICE_ACCOUNT:
        for field in ("secrets", "imagePullSecrets"):
            if field in have and field not in done:
                done[field] = have[field]
    _keep_restart(have, done)
    return done


def _keep_restart(have: Manifest, done: Manifest) -> None:
    """`kubectl rollout restart` is the user's good right: to lose its mark would be another restart."""
    try:
        when = have["spec"]["template"]["metadata"]["annotations"][_RESTARTED_AT]
        annotations = done["spec"]["template"]["metadata"].setdefault("annotations", {})
    except (KeyError, TypeError):
        return
    annotations[_RESTARTED_AT] = when


def _difference(kind: Kind, have: Manifest, desired: Manifest) -> str | None:
    found = difference(have, desired)
    if found is None and kind == kinds.SECRET and set(have.get("data") or ()) != set(desired.get("data") or ()):
        return "data"
    return found


def _seen(done: _Done, live: Live) -> bool:
    """Nothing but its status moved since."""
    if done.resource_version == live.resource_version:
        return True
    return False if not live.foreign else bool(done.generation) and done.generation == live.generation


def _trouble(name: str, desired: Manifest, error: ApiError) -> Trouble:
    namespace = desired["metadata"]["namespace"]
    if "exceeded quota" in error.message:
        return Trouble(
            Reason.QUOTA_EXCEEDED,
            f"{name} cannot be made: {error.message}: raise the quota (`kubectl -n {namespace} describe quota`)",
        )
    return Trouble(Reason.OBJECT_REFUSED, f"the API server refuses {name}: {error.message}")


def _larger(wanted: Any, have: Any) -> bool:
    new, old = quantity(wanted), quantity(have)
    return new is not None and old is not None and new > old

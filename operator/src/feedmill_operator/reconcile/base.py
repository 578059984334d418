"""What the reconcilers of feeds and pipelines share: bringing objects to their manifests, writing status, telling."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from feedmill_operator import names
from feedmill_operator.config import Options
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Kind, KubeApi, Manifest
from feedmill_operator.reconcile import hasten, prune
from feedmill_operator.reconcile.answers import Answers
from feedmill_operator.reconcile.apply import Applier, Outcome, Refused
from feedmill_operator.reconcile.catalog import Catalog, PipelineView
from feedmill_operator.reconcile.conditions import by_type
from feedmill_operator.reconcile.facts import Role
from feedmill_operator.reconcile.observe import Pods
from feedmill_operator.reconcile.ports import EventSink, Facts
from feedmill_operator.reconcile.queue import Key, WorkQueue
from feedmill_operator.reconcile.reasons import WARN, Reason, Type
from feedmill_operator.reconcile.store import Ref
from feedmill_operator.reconcile.troubles import Trouble
from feedmill_operator.reconcile.validity import Refusal
from feedmill_operator.reconcile.writer import StatusWriter

RECHECK = 15.0
"""Seconds until a Secret that cannot be used is looked at again; one with the watch label is noticed at once."""
_ORDER = (
    kinds.SERVICE_ACCOUNT, kinds.SECRET, kinds.CONFIG_MAP, kinds.NETWORK_POLICY, kinds.SERVICE, kinds.PDB,
    kinds.STATEFUL_SET, kinds.JOB, kinds.DEPLOYMENT, kinds.CRON_JOB,
)  # fmt: skip
"""What others need comes first."""
_WHAT = {
    kinds.FEED.kind: "a feed",
    kinds.ACCOUNT.kind: "an account",
    kinds.BACKUP.kind: "a backup",
    kinds.RESTORE.kind: "a restore",
}


@dataclass(frozen=True, slots=True)
class Tools:
    """What every reconciler works with."""

    api: KubeApi
    store: Pods
    queue: WorkQueue
    facts: Facts
    options: Options
    events: EventSink
    answers: Answers
    catalog: Catalog
    applier: Applier
    writer: StatusWriter


@dataclass(slots=True)
class Work:
    """What came of bringing objects to their manifests."""

    troubles: list[Trouble] = field(default_factory=list)
    """What the API server refuses."""
    undone: list[str] = field(default_factory=list)
    """Objects somebody had changed."""
    config_changed: bool = False
    error: ApiError | None = None
    """Why the rest was not done; it may go better next time."""

    @property
    def failure(self) -> str:
        """For the status."""
        return "" if self.error is None else short(self.error)


def short(error: ApiError) -> str:
    """An answer of the API server in a line."""
    if error.status == 0:
        return "the API server did not answer"
    return f"the API server answered {error.status} {error.reason}: {error.message}"[:300].rstrip(" :")


def pipeline_of(body: Mapping[str, Any]) -> str:
    """Name of the FeedPipeline that a feed, an account or a run names."""
    return str(((body.get("spec") or {}).get("pipelineRef") or {}).get("name", ""))


def view_of(tools: Tools, key: Key, body: Mapping[str, Any]) -> PipelineView | Refusal | None:
    """How the pipeline that an object names stands; None = nobody has looked yet, somebody will now."""
    name = pipeline_of(body)
    view = tools.catalog.view(key.namespace, name)
    if view is not None:
        return view
    if tools.store.get(kinds.PIPELINE, key.namespace, name) is None:
        what = _WHAT[key.kind]
        return Refusal(
            Reason.PIPELINE_NOT_FOUND,
            f'spec.pipelineRef.name: "{name}": there is no FeedPipeline of that name in namespace {key.namespace}: '
            f"make it, or name another ({what} and its pipeline share one namespace)",
        )
    tools.queue.add(Key(kinds.PIPELINE.kind, key.namespace, name))
    return None


def unaccepted(namespace: str, name: str, view: PipelineView | Refusal) -> Refusal | None:
    """Why nothing can be carried out that names this pipeline."""
    if isinstance(view, Refusal):
        return view
    if view.refusal is None and view.pipeline is not None:
        return None
    why = f" ({view.refusal.reason}: {view.refusal.message})" if view.refusal is not None else ""
    return Refusal(
        Reason.PIPELINE_NOT_ACCEPTED,
        f'its FeedPipeline "{name}" is not accepted{why}: see `kubectl -n {namespace} describe fpl {name}`',
    )


async def carry_out(tools: Tools, manifests: Sequence[Manifest], owner_uid: str, keep: Collection[Ref] = ()) -> Work:
    """Apply every manifest and delete what is owned beyond them and ``keep``. Raises nothing of the API server's."""
    work = Work()
    wanted = {_ref(manifest) for manifest in manifests} | set(keep)
    try:
        for manifest in sorted(manifests, key=_rank):
            await _apply(tools, manifest, work)
        await prune.prune(tools.api, tools.store, tools.applier, owner_uid, wanted)
    except ApiError as error:
        work.error = error
    return work


async def _apply(tools: Tools, manifest: Manifest, work: Work) -> None:
    try:
        outcome = await tools.applier.apply(manifest)
    except Refused as refused:
        if _ref(manifest).kind not in kinds.OPTIONAL:
            work.troubles.append(refused.trouble)
        return
    if outcome is Outcome.UNDONE:
        work.undone.append(f"{manifest['kind']} {manifest['metadata']['name']}")
    if manifest["kind"] == "ConfigMap" and outcome in (Outcome.CHANGED, Outcome.UNDONE):
        work.config_changed = True


def _ref(manifest: Manifest) -> Ref:
    metadata = manifest["metadata"]
    return Ref(kinds.kind_of(manifest), str(metadata["namespace"]), str(metadata["name"]))


def _rank(manifest: Manifest) -> int:
    kind = kinds.kind_of(manifest)
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def config_hash(manifests: Iterable[Manifest], config_map: str) -> str:
    """Of the configuration that a ConfigMap carries; empty when there is none."""
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap" and manifest["metadata"]["name"] == config_map:
            return str((manifest["metadata"].get("annotations") or {}).get(names.CONFIG_HASH, ""))
    return ""


def live_config_hash(tools: Tools, namespace: str, config_map: str) -> str:
    """As it was last applied."""
    live = tools.store.get(kinds.CONFIG_MAP, namespace, config_map)
    return live.annotations.get(names.CONFIG_HASH, "") if live is not None else ""


async def spread_config(tools: Tools, key: Key, roles: Iterable[Role], digest: str, *, changed: bool) -> None:
    """Make running pods take a changed configuration now, and look soon whether they did."""
    for role in roles:
        late = hasten.behind(role.pods, role.answers, digest, changed=changed)
        await hasten.hasten(tools.api, late, digest)
        other = any(answer.config_hash not in ("", digest) for answer in role.answers.values())
        if late or other:
            tools.answers.hurry(key)


def now() -> str:
    """RFC 3339, as Kubernetes writes times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def finish(
    tools: Tools, key: Key, kind: Kind, body: Mapping[str, Any], status: Mapping[str, Any], work: Work
) -> float | None:
    """Write the status and tell of it. Raises the error that the work met, so that it is tried again.

    One failure is not written: most are over at the next try.
    """
    tell(tools.events, body, status, work)
    first = work.error is not None and tools.queue.failures(key) == 0
    wait = None if first else await tools.writer.write(key, kind, body, status)
    if work.error is not None:
        raise work.error
    return wait


def tell(events: EventSink, body: Mapping[str, Any], status: Mapping[str, Any], work: Work) -> None:
    """Events of what a person should know; each is published once per generation."""
    written = by_type(status.get("conditions") or ())
    ready = written.get(Type.READY, {})
    told: set[str] = set()
    for kind in (Type.READY, Type.PROGRESSING, Type.DATA_FRESH, Type.KEY_SOUND, Type.BACKUP_HEALTHY, Type.COMPLETE):
        condition = written.get(kind, {})
        reason = str(condition.get("reason", ""))
        bad = kind is Type.PROGRESSING or condition.get("status") == "False"
        if bad and reason in WARN and reason != Reason.RECONCILE_FAILED and reason not in told:
            told.add(reason)
            events.warning(body, reason, str(condition.get("message", "")))
    if ready.get("status") == "True":
        events.normal(body, str(Type.READY), str(ready.get("message", "")))
    complete = written.get(Type.COMPLETE, {})
    if complete.get("status") == "True":
        events.normal(body, str(complete.get("reason", "")), str(complete.get("message", "")))
    if work.undone:
        events.normal(body, "DriftUndone", f"changed by somebody and put back: {', '.join(work.undone[:10])}")


def paused(body: Mapping[str, Any]) -> bool:
    """The user asks for hands off."""
    return _annotation(body, names.PAUSE).lower() == "true"


def restart(body: Mapping[str, Any]) -> str:
    """The user's mark for a restart; empty = none."""
    return _annotation(body, names.RESTART)


def _annotation(body: Mapping[str, Any], name: str) -> str:
    return str((body["metadata"].get("annotations") or {}).get(name, ""))


def going(body: Mapping[str, Any] | None) -> bool:
    """It is gone, or will be once somebody else's finalizer lets it."""
    return body is None or bool(body["metadata"].get("deletionTimestamp"))


def soonest(*waits: float | None) -> float | None:
    """The least of what is known."""
    return min((wait for wait in waits if wait is not None), default=None)


def recheck(refusal: Refusal | None) -> float | None:
    """A Secret may appear without anybody being told; all else comes by a watch."""
    secrets = (Reason.SECRET_NOT_FOUND, Reason.SECRET_KEY_MISSING, Reason.SECRET_INVALID)
    return RECHECK if refusal is not None and refusal.reason in secrets else None


def forget(tools: Tools, key: Key) -> None:
    """The object is gone: nothing of it is asked or remembered."""
    tools.answers.forget(key)
    tools.writer.forget(key)

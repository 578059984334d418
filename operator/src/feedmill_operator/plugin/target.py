"""What the user means by a name: a feed, a pipeline or, where only looking is meant, an account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feedmill_operator import names
from feedmill_operator.kube import kinds
from feedmill_operator.kube.api import ApiError, Kind, Manifest
from feedmill_operator.plugin.cluster import Cluster
from feedmill_operator.plugin.errors import WRONG, PluginError

_WORDS = {
    **dict.fromkeys(("xf", "feed", "feeds", "exchangefeed", "exchangefeeds"), kinds.FEED),
    **dict.fromkeys(("fpl", "pipeline", "pipelines", "feedpipeline", "feedpipelines"), kinds.PIPELINE),
    **dict.fromkeys(("xa", "account", "accounts", "exchangeaccount", "exchangeaccounts"), kinds.ACCOUNT),
}
SHORT = {kinds.FEED.kind: "feed", kinds.PIPELINE.kind: "pipeline", kinds.ACCOUNT.kind: "account"}
WITH_PODS = (kinds.FEED, kinds.PIPELINE)
EVERY = (*WITH_PODS, kinds.ACCOUNT)
_ORDER = (kinds.PIPELINE, kinds.FEED, kinds.ACCOUNT)


@dataclass(frozen=True, slots=True)
class Target:
    """One object."""

    kind: Kind
    manifest: Manifest

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.manifest["metadata"]["namespace"])

    @property
    def is_feed(self) -> bool:
        return self.kind is kinds.FEED

    @property
    def is_account(self) -> bool:
        return self.kind is kinds.ACCOUNT

    @property
    def pipeline(self) -> str:
        """Its own name, or that of the pipeline it names."""
        if self.kind is kinds.PIPELINE:
            return self.name
        return str(((self.manifest.get("spec") or {}).get("pipelineRef") or {}).get("name") or "")

    def __str__(self) -> str:
        return f"{SHORT[self.kind.kind]}/{self.name}"

    @property
    def paused(self) -> bool:
        return annotations_of(self.manifest).get(names.PAUSE) == "true"

    @property
    def suspended(self) -> bool:
        return bool((self.manifest.get("spec") or {}).get("suspend"))

    def owns(self, pod: Manifest) -> bool:
        """A process of a feed, or of the pipeline itself (not of its feeds). An account has none of its own."""
        found = labels_of(pod)
        if self.is_account:
            return False
        if self.is_feed:
            return found.get(names.FEED) == self.name
        return found.get(names.PIPELINE) == self.name and names.FEED not in found


def labels_of(manifest: Manifest) -> dict[str, str]:
    return (manifest.get("metadata") or {}).get("labels") or {}


def annotations_of(manifest: Manifest) -> dict[str, str]:
    return (manifest.get("metadata") or {}).get("annotations") or {}


def find(cluster: Cluster, namespace: str, text: str, among: Sequence[Kind] = WITH_PODS) -> Target:
    """``NAME``, ``feed/NAME``, ``pipeline/NAME`` or, ``among`` them, ``account/NAME``; raises PluginError with a guess
    when there is none."""
    word, _, name = text.rpartition("/")
    forms = _or(["NAME", *(f"{SHORT[kind.kind]}/NAME" for kind in among)])
    if word and word.lower() not in _WORDS:
        raise PluginError(f"{text}: {word!r} is not a kind: write {forms}", WRONG)
    if not name:
        raise PluginError(f"{text!r}: write {forms}", WRONG)
    wanted = [_WORDS[word.lower()]] if word else list(among)
    if not set(wanted) <= set(among):
        raise PluginError(f"{text}: an account has no pods of its own: name its pipeline (pipeline/NAME)", WRONG)
    found = [Target(kind, item) for kind in wanted if (item := _read(cluster, kind, namespace, name)) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        what = " and ".join(f"a{'n' if each.is_account else ''} {SHORT[each.kind.kind]}" for each in found)
        raise PluginError(
            f"{name} is both {what} of namespace {namespace}: write {_or([str(each) for each in found])}", WRONG
        )
    raise PluginError(_not_found(cluster, namespace, name, wanted), WRONG)


def _read(cluster: Cluster, kind: Kind, namespace: str, name: str) -> Manifest | None:
    try:
        return cluster.read(kind, namespace, name)
    except ApiError as error:
        if _unseen(kind, error):
            return None
        raise


def _unseen(kind: Kind, error: ApiError) -> bool:
    """Accounts came later than the others: a Role or a cluster may not know of them."""
    return kind is kinds.ACCOUNT and error.status in (403, 404)


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def find_all(cluster: Cluster, namespace: str, texts: Sequence[str], among: Sequence[Kind] = WITH_PODS) -> list[Target]:
    """Each of ``texts``, once."""
    found: dict[str, Target] = {}
    for text in texts:
        target = find(cluster, namespace, text, among)
        found.setdefault(str(target), target)
    return list(found.values())


def everything(cluster: Cluster, namespace: str | None, among: Sequence[Kind] = WITH_PODS) -> list[Target]:
    """Pipelines, then feeds, then accounts, by namespace and name."""
    found: list[Target] = []
    for kind in among:
        try:
            found += [Target(kind, item) for item in cluster.list(kind, namespace)]
        except ApiError as error:
            if not _unseen(kind, error):
                raise
    return sorted(found, key=lambda each: (_ORDER.index(each.kind), each.namespace, each.name))


def pods(cluster: Cluster, namespace: str | None) -> list[Manifest]:
    """All processes the operator made there, by name."""
    found = cluster.list(kinds.POD, namespace, f"{names.MANAGED_BY}={names.MANAGER}")
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def _not_found(cluster: Cluster, namespace: str, name: str, wanted: Sequence[Kind]) -> str:
    from feedmill.resources.problems import did_you_mean

    what = _or([SHORT[kind.kind] for kind in wanted])
    missing = f"namespace {namespace} has no {what} named {name}"
    known: dict[str, str] = {}
    try:
        for kind in wanted:
            for item in cluster.list(kind, namespace):
                known.setdefault(str(item["metadata"]["name"]), SHORT[kind.kind])
    except ApiError as error:
        if error.status != 403:
            raise
        return f"{missing} (you may not list what there is)"
    near = did_you_mean(name, known)
    if near:
        return f"{missing}: did you mean {near}? (kubectl feedmill status lists all)"
    if not known:
        return f"{missing}, nor any other: choose a namespace with -n, or look at all with kubectl feedmill status -A"
    return f"{missing}: there is {', '.join(sorted(known)[:20])}"

"""What the user means by a name: a feed or a pipeline."""

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
}
SHORT = {kinds.FEED.kind: "feed", kinds.PIPELINE.kind: "pipeline"}


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
    def pipeline(self) -> str:
        """Its own name, or that of the pipeline it names."""
        if not self.is_feed:
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
        """A process of a feed, or of the pipeline itself (not of its feeds)."""
        found = labels_of(pod)
        if self.is_feed:
            return found.get(names.FEED) == self.name
        return found.get(names.PIPELINE) == self.name and names.FEED not in found


def labels_of(manifest: Manifest) -> dict[str, str]:
    return (manifest.get("metadata") or {}).get("labels") or {}


def annotations_of(manifest: Manifest) -> dict[str, str]:
    return (manifest.get("metadata") or {}).get("annotations") or {}


def find(cluster: Cluster, namespace: str, text: str) -> Target:
    """``NAME``, ``feed/NAME`` or ``pipeline/NAME``; raises PluginError with a guess when there is none."""
    word, _, name = text.rpartition("/")
    if word and word.lower() not in _WORDS:
        raise PluginError(f"{text}: {word!r} is not a kind: write NAME, feed/NAME or pipeline/NAME", WRONG)
    if not name:
        raise PluginError(f"{text!r}: write NAME, feed/NAME or pipeline/NAME", WRONG)
    wanted = [_WORDS[word.lower()]] if word else [kinds.FEED, kinds.PIPELINE]
    found = [Target(kind, item) for kind in wanted if (item := cluster.read(kind, namespace, name)) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        raise PluginError(
            f"{name} is both a feed and a pipeline of namespace {namespace}: write feed/{name} or pipeline/{name}",
            WRONG,
        )
    raise PluginError(_not_found(cluster, namespace, name, wanted), WRONG)


def find_all(cluster: Cluster, namespace: str, texts: Sequence[str]) -> list[Target]:
    """Each of ``texts``, once."""
    found: dict[str, Target] = {}
    for text in texts:
        target = find(cluster, namespace, text)
        found.setdefault(str(target), target)
    return list(found.values())


def everything(cluster: Cluster, namespace: str | None) -> list[Target]:
    """Pipelines, then feeds, by namespace and name."""
    found = [
        Target(kind, item) for kind in (kinds.PIPELINE, kinds.FEED) for item in cluster.list(kind, namespace)
    ]  # fmt: skip
    return sorted(found, key=lambda target: (target.is_feed, target.namespace, target.name))


def pods(cluster: Cluster, namespace: str | None) -> list[Manifest]:
    """All processes the operator made there, by name."""
    found = cluster.list(kinds.POD, namespace, f"{names.MANAGED_BY}={names.MANAGER}")
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def _not_found(cluster: Cluster, namespace: str, name: str, wanted: Sequence[Kind]) -> str:
    from feedmill.resources.problems import did_you_mean

    what = " or ".join(SHORT[kind.kind] for kind in wanted)
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

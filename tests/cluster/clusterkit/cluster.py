"""Clusters for tests: started from nothing, ended always, with an audit log of what the operator asks."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterkit.api import Api, Object
from clusterkit.fakenodes import fake_nodes
from clusterkit.tool import ROOT, NoCluster, Tool, find, need_node, start

CRDS = ROOT / "crds"
OPERATOR_NAMESPACE, OPERATOR_ACCOUNT = "feedmill-system", "feedmill-operator"
OPERATOR_USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR_ACCOUNT}"
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata", "users": [OPERATOR_USER]}, {"level": "None"}],
}


@dataclass(slots=True)
class Cluster:
    """A running one."""

    mode: str
    """api-only, control-plane, kwok, node."""
    folder: Path
    kubeconfig: Path
    programs: Path
    """Where kubectl is."""
    audit: Path | None
    """Audit log of the operator's requests; None where the API server could not be told to write one (kind)."""
    api: Api
    addresses: Mapping[str, str] = field(default_factory=dict)
    """``host``: this machine as pods see it (real nodes of the cluster tool)."""
    kind_name: str | None = None

    @property
    def state(self) -> Path:
        """Of the cluster tool."""
        return self.folder / "state"

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As a user would; ``check``: a failure raises AssertionError with what kubectl said."""
        command = [str(self.programs / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        cache = f"--cache-dir={self.folder / 'kubectl-cache'}"
        done = subprocess.run([*command, cache], input=text, capture_output=True, text=True, timeout=240, check=False)
        if check:
            assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done

    def apply(self, *objects: Object) -> None:
        """Server-side, as the tests' own field manager."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--field-manager=tests", "-f", "-", text=text)

    def namespace(self, prefix: str = "t", labels: Mapping[str, str] | None = None) -> str:
        """A fresh one."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        body: Object = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": dict(labels or {})},
        }
        self.api.request("POST", "/api/v1/namespaces", body)
        return name

    def drop_namespace(self, name: str) -> None:
        """Asks for its end and does not wait for it."""
        self.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")

    def audited(self, since: int = 0) -> list[dict[str, Any]]:
        """Requests of the operator's account, from a byte offset of the log on."""
        assert self.audit is not None
        with self.audit.open("rb") as file:
            file.seek(since)
            return [json.loads(line) for line in file if line.endswith(b"\n")]

    def audit_mark(self) -> int:
        """Where the audit log ends now."""
        assert self.audit is not None
        return self.audit.stat().st_size if self.audit.exists() else 0


@contextmanager
def running(
    mode: str, *, nodes: int = 2, images: Sequence[Path] = (), index: int = 0, with_crds: bool = True
) -> Iterator[Cluster]:
    """A cluster, with our CRDs unless the chart is to bring them; raises NoCluster."""
    tool = find()
    crds = sorted(CRDS.glob("*.yaml")) if with_crds else []
    if mode == "node":
        need_node(tool)
    folder = Path(tempfile.mkdtemp(prefix="feedmill-cluster-"))
    try:
        if tool.folder is None:
            with _kind(mode, folder, nodes, images, crds) as cluster:
                yield cluster
        else:
            with _own(tool, mode, folder, nodes, images, index, crds) as cluster:
                yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _own(
    tool: Tool, mode: str, folder: Path, nodes: int, images: Sequence[Path], index: int, crds: Sequence[Path]
) -> Iterator[Cluster]:
    assert tool.folder is not None
    build = [tool.folder / "build", *(["--images"] if mode == "node" else [])]
    programs = Path(_run([str(part) for part in build]).splitlines()[-1])
    audit = folder / "audit.log"
    wrapped = _wrapped(programs, folder, audit, patient=mode == "kwok")
    state = folder / "state"
    command = [str(tool.folder / "up"), f"--{mode}", "--state", str(state), "--bin", str(wrapped)]
    if mode == "kwok":
        command += ["--nodes", str(nodes)]
    if mode == "node":
        command += ["--index", str(index)]
    for path in crds:
        command += ["--apply", str(path)]
    for image in images:
        command += ["--image", str(image)]
    try:
        kubeconfig = Path(start(command, state, tool.folder / "down").splitlines()[-1])
        addresses = state / "addresses.json"
        yield Cluster(
            mode, folder, kubeconfig, programs, audit, Api(kubeconfig),
            json.loads(addresses.read_text()) if addresses.exists() else {},
        )  # fmt: skip
    finally:
        _run([str(tool.folder / "down"), "--state", str(state)])


def _wrapped(programs: Path, folder: Path, audit: Path, *, patient: bool) -> Path:
    """A directory of the same programs whose API server also writes an audit log.

    ``patient``: simulated nodes tell that they live every 20 to 55 s, and the controllers take one for dead after 50 s;
    its pods then lose their readiness for good, since nobody on it would tell otherwise.
    """
    policy = folder / "audit-policy.json"
    policy.write_text(json.dumps(_POLICY))
    flags = {"kube-apiserver": f"--audit-policy-file={policy} --audit-log-path={audit}"}
    if patient:
        flags["kube-controller-manager"] = "--node-monitor-grace-period=1h"
    wrapped = folder / "programs" / "bin"
    wrapped.mkdir(parents=True)
    (wrapped.parent / "images").symlink_to(programs.parent / "images")
    for program in programs.iterdir():
        if program.name not in flags:
            (wrapped / program.name).symlink_to(program)
            continue
        script = wrapped / program.name
        script.write_text(f'#!/bin/sh\nexec {program} "$@" {flags[program.name]}\n')
        script.chmod(0o755)
    return wrapped


@contextmanager
def _kind(mode: str, folder: Path, nodes: int, images: Sequence[Path], crds: Sequence[Path]) -> Iterator[Cluster]:
    name = f"feedmill-{secrets.token_hex(3)}"
    kubeconfig = folder / "kubeconfig"
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise NoCluster("kind is there, kubectl is not: install kubectl")
    try:
        _run(["kind", "create", "cluster", "--name", name, "--kubeconfig", str(kubeconfig), "--wait", "120s"], 600)
        for image in images:
            _run(["kind", "load", "image-archive", str(image), "--name", name], 300)
        cluster = Cluster(mode, folder, kubeconfig, Path(kubectl).parent, None, Api(kubeconfig), {}, name)
        for path in crds:
            cluster.kubectl("apply", "--server-side", "-f", str(path))
        with fake_nodes(cluster.api, nodes) if mode == "kwok" else nullcontext():
            yield cluster
    finally:
        _run(["kind", "delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig)])


def _run(command: Sequence[str], timeout: float = 900.0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout

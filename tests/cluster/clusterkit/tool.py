"""Which way there is to a Kubernetes cluster on this machine, or why there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""Of the project."""
VARIABLE = "FEEDMILL_CLUSTER_TOOL"
_HOW = (
    f"set {VARIABLE} to the folder of the cluster tool (up, down, build), or put it beside the project as "
    "../shared/cluster, or install Docker and kind"
)
_NODE_PROGRAMS = ("containerd", "ctr", "runc", "iptables", "ip", "unshare", "nsenter")
_NODE_PACKAGES = "containerd runc containernetworking-plugins iptables mmdebstrap"


class NoCluster(Exception):
    """There is none of the wanted mode; the message says why and how to get one."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A way to a cluster: the project's cluster tool, or kind."""

    folder: Path | None
    """Of the cluster tool; None = kind."""


def find() -> Tool:
    """Raises NoCluster."""
    given = os.environ.get(VARIABLE)
    folder = Path(given) if given else ROOT.parent / "shared" / "cluster"
    if (folder / "up").is_file():
        return _own(folder)
    if given:
        raise NoCluster(f"{VARIABLE}={given}: there is no program `up` in it: {_HOW}")
    if shutil.which("kind") and _docker():
        return Tool(None)
    missing = [name for name, there in (("kind", shutil.which("kind")), ("a running Docker", _docker())) if not there]
    raise NoCluster(f"no cluster tool at ../shared/cluster, and {' and '.join(missing)} missing: {_HOW}")


def start(command: Sequence[str], state: Path, down: Path, *, tries: int = 3) -> str:
    """Run the tool's ``up``; gives what it prints. Tried anew on other ports: those it found free may be taken by
    another process before its servers have them. Raises RuntimeError with what it said."""
    for left in range(tries - 1, -1, -1):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode == 0:
            return done.stdout
        subprocess.run([str(down), "--state", str(state)], capture_output=True, timeout=120, check=False)
        shutil.rmtree(state, ignore_errors=True)
        if not left:
            break
    raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")


def _own(folder: Path) -> Tool:
    ready = any((folder / "prebuilt").glob("*.tar.xz")) or _built()
    if not ready and shutil.which("go") is None:
        raise NoCluster(
            f"the cluster tool in {folder} must be compiled once and there is no Go: install Go 1.24 or later"
        )
    if shutil.which("openssl") is None:
        raise NoCluster("the cluster tool needs the command openssl: apt-get install openssl")
    return Tool(folder)


def _built() -> bool:
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(os.environ.get("TESTCLUSTER_CACHE") or cache_home / "testcluster")
    return any(root.glob("*/bin/kubectl"))


@cache
def _docker() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def need_node(tool: Tool) -> None:
    """Raises NoCluster where no real node can be started."""
    if tool.folder is None:
        return
    if os.geteuid() != 0:
        raise NoCluster("a real node needs root: run `sudo make e2e`")
    missing = [name for name in _NODE_PROGRAMS if shutil.which(name) is None]
    if missing or not Path("/usr/lib/cni/bridge").exists():
        raise NoCluster(
            f"a real node needs {', '.join(missing) or 'CNI plug-ins'}: "
            f"apt-get install -y --no-install-recommends {_NODE_PACKAGES}"
        )

"""``kubectl feedmill`` of this tree, as kubectl finds it on the PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from clusterkit.cluster import Cluster

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def runner(cluster: Cluster, folder: Path, kubeconfig: Path | None = None) -> Run:
    """``run("status", "-n", "x")``: ``kubectl feedmill status -n x``; ``folder`` is where its script is put."""
    folder.mkdir(exist_ok=True)
    plugin = folder / "kubectl-feedmill"
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m feedmill_operator.plugin.main "$@"\n')
    plugin.chmod(0o755)
    environment = dict(os.environ) | {
        "PATH": os.pathsep.join([str(folder), os.environ.get("PATH", "")]),
        "KUBECONFIG": str(kubeconfig or cluster.kubeconfig),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(cluster.programs / "kubectl"), "feedmill", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)

    return run

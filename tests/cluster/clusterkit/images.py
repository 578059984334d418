"""The images of this working tree, made without a registry: the operator's, and the services' under two tags."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clusterkit.cluster import Cluster
from clusterkit.tool import ROOT, NoCluster, find
from feedmill import __version__


@dataclass(frozen=True, slots=True)
class Images:
    """Archives and the names in them."""

    operator: str
    services: tuple[str, str]
    archives: tuple[Path, ...]


def make_images() -> Images:
    """By ``tools/images``; raises NoCluster where it cannot. ``FEEDMILL_E2E_IMAGES=ready`` takes what it made last."""
    if os.environ.get("FEEDMILL_E2E_IMAGES") != "ready":
        done = subprocess.run([str(ROOT / "tools" / "images"), "--next"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NoCluster(f"the images could not be made: {done.stderr.strip()[-500:]}")
    made = ROOT / "build" / "images"
    names = [f"localhost/feedmill-services:{__version__}{suffix}" for suffix in ("", "-next")]
    operator = f"localhost/feedmill-operator:{__version__}"
    return Images(operator, (names[0], names[1]), (made / "operator.tar", made / "services.tar"))


def load_images(cluster: Cluster, images: Images) -> None:
    """Into the node, as a registry would."""
    tool = find()
    if tool.folder is not None:
        command = [str(tool.folder / "load"), "--state", str(cluster.state), *map(str, images.archives)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        return
    for archive in images.archives:
        command = ["kind", "load", "image-archive", str(archive), "--name", str(cluster.kind_name)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)

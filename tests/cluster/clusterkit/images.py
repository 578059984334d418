"""The images of this working tree, made without a registry: the operator's, and the services' under two tags."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from clusterkit.cluster import Cluster
from clusterkit.tool import NoCluster, find


@dataclass(frozen=True, slots=True)
class Images:
    """Archives and the names in them."""

    operator: str
    services: tuple[str, str]
    archives: tuple[Path, ...]


def make_images(folder: Path) -> Images:
    """Raises NoCluster."""
    raise NoCluster("no images")


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

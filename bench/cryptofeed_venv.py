"""cryptofeed 2.5.0 in a virtual environment of its own: it needs Python 3.12 or newer, Feedmill 3.11."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.processes import ROOT, BenchError

VERSION = "2.5.0"
FOLDER = ROOT / ".venv-cryptofeed"
NEEDS = "needs Python >= 3.12"


def find_python() -> Path | None:
    """A Python 3.12 or 3.13 that really starts: from PATH, or one that pyenv has installed."""
    candidates = [found for name in ("python3.12", "python3.13") if (found := shutil.which(name))]
    if pyenv := shutil.which("pyenv"):
        done = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, check=False)
        for version in done.stdout.split():
            if version.startswith(("3.12.", "3.13.")):
                prefix = subprocess.run([pyenv, "prefix", version], capture_output=True, text=True, check=False)
                candidates.append(f"{prefix.stdout.strip()}/bin/python")
    for candidate in candidates:
        try:
            code = subprocess.run([candidate, "-c", "import ssl, venv"], capture_output=True, check=False).returncode
        except OSError:
            continue
        if code == 0:
            return Path(candidate)
    return None


def _version(python: Path) -> str:
    text = "from importlib.metadata import version; print(version('cryptofeed'))"
    done = subprocess.run([str(python), "-c", text], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def ensure(log: Path) -> Path | None:
    """The venv's Python, made if it is not there; None when the machine has no fitting Python.

    Raises BenchError when pip fails (its output is in ``log``).
    """
    python = FOLDER / "bin" / "python"
    if python.exists() and _version(python) == VERSION:
        return python
    base = find_python()
    if base is None:
        return None
    subprocess.run([str(base), "-m", "venv", "--clear", str(FOLDER)], check=True)
    with log.open("ab") as output:
        done = subprocess.run(
            [str(python), "-m", "pip", "install", f"cryptofeed[redis,postgres]=={VERSION}"],
            stdout=output, stderr=output, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise BenchError(f"cryptofeed {VERSION} could not be installed: see {log}")
    return python

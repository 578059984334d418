"""cryptofeed in a virtual environment of its own: 2.5.0, which needs Python 3.12 or newer, else 2.4.1.

2.4.1 is the newest version that Python 3.11, on which Feedmill runs too, can install. Everything is pinned in
``bench/cryptofeed.txt``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.processes import ROOT

VERSION = "2.5.0"
"""The version that the goals compare with."""
FALLBACK = "2.4.1"
FOLDER = ROOT / ".venv-cryptofeed"
PINS = ROOT / "bench" / "cryptofeed.txt"
NAMES = ("python3.12", "python3.13", "python3.14")
_READ = "from importlib.metadata import version; print(version('cryptofeed'))"
_USABLE = "import ensurepip, ssl, sys, venv; sys.exit(sys.version_info < (3, 12))"


@dataclass(frozen=True, slots=True)
class Peer:
    """What cryptofeed's column holds. ``python`` None: nothing, for the reason in ``why``."""

    python: Path | None
    version: str = VERSION
    why: str = ""
    failed: bool = False
    """It should have been installed and could not be."""

    @property
    def title(self) -> str:
        return f"cryptofeed {self.version}"


def find_python() -> Path | None:
    """A Python 3.12 or newer that really starts: our own, from PATH, or one that pyenv has installed."""
    candidates = [sys.executable] if sys.version_info >= (3, 12) else []
    candidates += [found for name in NAMES if (found := shutil.which(name))]
    if pyenv := shutil.which("pyenv"):
        for version in _output(pyenv, "versions", "--bare").split():
            if version.startswith(("3.12.", "3.13.", "3.14.")):
                candidates.append(f"{_output(pyenv, 'prefix', version)}/bin/python")
    for candidate in candidates:
        try:
            code = subprocess.run([candidate, "-c", _USABLE], capture_output=True, check=False).returncode
        except OSError:
            continue
        if code == 0:
            return Path(candidate)
    return None


def _output(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def ensure(log: Path) -> Peer:
    """The venv, made if it is not there or holds another version; pip's output is in ``log``."""
    base = find_python()
    wanted = VERSION if base else FALLBACK
    why = "" if base else f"no Python >= 3.12 was found, which {VERSION} needs"
    python = FOLDER / "bin" / "python"
    if python.exists() and _output(python, "-c", _READ) == wanted:
        return Peer(python, wanted, why)
    print(f"installing cryptofeed {wanted} into {FOLDER.name} with {base or sys.executable}", flush=True)
    with log.open("ab") as output:
        for command in (
            [base or sys.executable, "-m", "venv", "--clear", FOLDER],
            [python, "-m", "pip", "install", "--disable-pip-version-check", "--constraint", PINS,
             f"cryptofeed[redis,postgres]=={wanted}"],
        ):  # fmt: skip
            done = subprocess.run([str(part) for part in command], stdout=output, stderr=output, check=False)
            if done.returncode != 0:
                return Peer(None, wanted, f"could not be installed (see {log.relative_to(ROOT)})", failed=True)
    return Peer(python, wanted, why)

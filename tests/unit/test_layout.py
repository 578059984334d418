"""The folders `operator/` and `services/` are no packages: one would hide a module of the standard library."""

from __future__ import annotations

import operator
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_folder_of_the_tree_hides_the_standard_library() -> None:
    assert ROOT not in Path(operator.__file__).resolve().parents
    for name in ("operator/__init__.py", "services/__init__.py", "operator.py", "services.py"):
        assert not (ROOT / name).exists(), f"{name} must not exist"


def test_python_started_in_the_root_finds_its_own_operator_module() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.__file__)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ROOT not in Path(told.stdout.strip()).resolve().parents

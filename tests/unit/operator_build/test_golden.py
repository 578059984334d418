"""The manifests of every case are those kept in golden/.

FEEDMILL_GOLDEN=1 pytest tests/unit/operator_build      writes them anew: read the difference before a commit.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from pathlib import Path

import pytest
import yaml
from build_cases import CASES, templates

FOLDER = Path(__file__).parent / "golden"
GUARD = FOLDER / "pod-templates.sha256"
GUARD_HEAD = """\
# Hashes of the pod templates of Deployments and StatefulSets, for a given image.
# A line that changes restarts users' pods when they upgrade the operator. Change one only on purpose, and say so in
# CHANGELOG.md: "The upgrade of the operator restarts ... once".
"""
WRITE = bool(os.environ.get("FEEDMILL_GOLDEN"))


class _Dumper(yaml.SafeDumper):
    """Writes every part out: no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _string(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Files inside of a file are to be read line by line."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _string)


def _text_of(name: str) -> str:
    return "---\n".join(yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=120) for each in CASES[name]())


@pytest.mark.parametrize("name", CASES)
def test_the_manifests_are_the_recorded_ones(name: str) -> None:
    path, text = FOLDER / f"{name}.yaml", _text_of(name)
    if WRITE:
        path.write_text(text, encoding="utf-8")
    recorded = path.read_text(encoding="utf-8")
    lines = difflib.unified_diff(recorded.splitlines(), text.splitlines(), "recorded", "built", lineterm="", n=6)
    assert text == recorded, "\n".join(lines)


def test_there_is_no_record_without_a_case() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(CASES)


def test_an_upgrade_of_the_operator_restarts_no_pod() -> None:
    lines = []
    for name, build in CASES.items():
        for workload, template in templates(build()).items():
            if workload.startswith(("Deployment/", "StatefulSet/")):
                digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]
                lines.append(f"{digest}  {name}  {workload}\n")
    assert len(lines) >= 20
    text = GUARD_HEAD + "".join(lines)
    if WRITE:
        GUARD.write_text(text, encoding="utf-8")
    assert text == GUARD.read_text(encoding="utf-8"), GUARD_HEAD

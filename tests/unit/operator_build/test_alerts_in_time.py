"""Alerts tried with Prometheus' own tool: each fires when it should, nothing beside it does, and it resolves."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from alert_series import CASES, HEALTHY, LATE, Case
from test_alerts import EVERY

AFTER = "100m"


def test_every_alert_is_tried() -> None:
    assert {name for case in (*CASES, *LATE) for name in case.firing} == {rule["alert"] for rule in EVERY}
    names = [case.name for case in (*CASES, *LATE)]
    assert len(set(names)) == len(names)


def promtool(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    (folder / "rules.yaml").write_text(json.dumps({"groups": [{"name": "all", "rules": EVERY}]}))
    return subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False)


def tried(case: Case, at: str) -> dict[str, Any]:
    """As promtool reads it."""
    # promtool tells of the expression that is wrong and not of the test's name: so it stands in there.
    firing = f'count by (alertname) (ALERTS{{alertstate="firing", alertname!="{case.name}"}})'
    samples = [
        {"labels": f'{{alertname="{name}"}}', "value": times} for name, times in sorted(Counter(case.firing).items())
    ]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in (HEALTHY | case.series).items()],
        "promql_expr_test": [
            {"expr": firing, "eval_time": at, "exp_samples": samples},
            {"expr": firing, "eval_time": AFTER, "exp_samples": []},
        ],
    }


def test_they_fire_when_they_should_and_resolve(tmp_path: Path) -> None:
    tests = [*(tried(case, "55m") for case in CASES), *(tried(case, "85m") for case in LATE)]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(json.dumps(document))
    done = promtool(tmp_path, "test", "rules", "tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tool_notices_what_is_wrong(tmp_path: Path) -> None:
    """Else a run that tries nothing would look like one in which all is well."""
    case = Case("nothing fires, it says", {}, ("FeedmillGaps",))
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [tried(case, "55m")]}
    (tmp_path / "tests.yaml").write_text(json.dumps(document))
    done = promtool(tmp_path, "test", "rules", "tests.yaml")
    assert done.returncode == 1
    assert case.name in done.stderr
    assert "FeedmillGaps" in done.stderr


def test_the_rules_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    done = promtool(tmp_path, "check", "rules", "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(EVERY)} rules found" in done.stdout

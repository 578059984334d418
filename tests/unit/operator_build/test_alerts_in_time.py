"""Alerts tried with Prometheus' own tool: each fires when it should, nothing beside it does, and it resolves."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from alert_series import CASES, HEALTHY, LATE, Case
from test_alerts import EVERY

AFTER = "295m"


def test_every_alert_is_tried() -> None:
    assert {name for case in (*CASES, *LATE) for name in case.firing} == {rule["alert"] for rule in EVERY}


def _promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return found


@pytest.mark.parametrize(
    ("case", "at"), [*((case, "55m") for case in CASES), *((case, "85m") for case in LATE)],
    ids=[case.name.replace(" ", "-") for case in (*CASES, *LATE)],
)  # fmt: skip
def test_it_fires_and_resolves(case: Case, at: str, tmp_path: Path) -> None:
    promtool = _promtool()
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "all", "rules": EVERY}]}))
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(case.firing)]
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in (HEALTHY | case.series).items()
                ],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": at, "exp_samples": samples},
                    {"expr": firing, "eval_time": AFTER, "exp_samples": []},
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(json.dumps(tests))
    done = subprocess.run([promtool, "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "all", "rules": EVERY}]}))
    done = subprocess.run([_promtool(), "check", "rules", "rules.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(EVERY)} rules found" in done.stdout

"""The chart with the real Helm, both generations."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterkit.helms import Programs, programs
from clusterkit.tool import ROOT, NoCluster

CHART = ROOT / "helm" / "feedmill"


@dataclass(slots=True)
class Helm:
    """One generation of Helm with a home of its own."""

    major: int
    programs: Programs
    home: Path
    kubeconfig: Path | None = None
    extra: list[str] = field(default_factory=list)

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "HELM_CACHE_HOME": str(self.home), "HELM_CONFIG_HOME": str(self.home)}
        env |= {"HELM_DATA_HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig or os.devnull)}
        command = [str(self.programs.helm), *map(str, arguments)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)

    def __call__(self, *arguments: str | Path) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, f"helm {' '.join(map(str, arguments))}: {done.stderr or done.stdout}"
        return done.stdout

    def template(self, values: dict[str, Any] | None = None, *options: str) -> list[dict[str, Any]]:
        text = self("template", "feedmill", CHART, "--namespace", "feedmill-system", *self._set(values), *options)
        return [item for item in yaml.safe_load_all(text) if item]

    def refused(self, values: dict[str, Any], *options: str) -> str:
        done = self.run("template", "feedmill", CHART, *self._set(values), *options)
        assert done.returncode != 0, "it was taken"
        return done.stderr

    def _set(self, values: dict[str, Any] | None) -> list[str]:
        if not values:
            return []
        path = self.home / "values.json"
        path.write_text(json.dumps(values))
        return ["--values", str(path)]


@pytest.fixture(params=[3, 4], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Helm:
    try:
        found = programs(request.param)
    except NoCluster as error:
        pytest.skip(str(error))
    home = tmp_path / "helm"
    home.mkdir()
    return Helm(request.param, found, home)


Package = Callable[[str], Path]


@pytest.fixture
def package(helm: Helm, tmp_path: Path) -> Package:
    """``package("0.0.9")``: the chart as that version."""

    def make(version: str) -> Path:
        helm("package", CHART, "--version", version, "--destination", tmp_path)
        return tmp_path / f"feedmill-{version}.tgz"

    return make

"""A machine without a cluster says what it lacks, and the tests are skipped with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterkit import tool
from clusterkit.tool import NoCluster, Tool


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No tool beside the project, no compiled programs, and only the commands that a test puts into ``bin``."""
    monkeypatch.setattr(tool, "ROOT", tmp_path / "project" / "here")
    monkeypatch.delenv(tool.VARIABLE, raising=False)
    monkeypatch.setenv("TESTCLUSTER_CACHE", str(tmp_path / "cache"))
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    tool._docker.cache_clear()
    yield programs
    tool._docker.cache_clear()


def program(folder: Path, name: str, code: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(0o755)


def cluster_tool(tmp_path: Path, *, prebuilt: bool) -> Path:
    folder = tmp_path / "tool"
    (folder / "prebuilt").mkdir(parents=True)
    program(folder, "up")
    if prebuilt:
        (folder / "prebuilt" / "v1.tar.xz").touch()
    return folder


def test_nothing_at_all() -> None:
    with pytest.raises(NoCluster, match=r"kind and a running Docker missing: set FEEDMILL_CLUSTER_TOOL"):
        tool.find()


def test_kind_without_docker(bare_machine: Path) -> None:
    program(bare_machine, "kind")
    program(bare_machine, "docker", code=1)
    with pytest.raises(NoCluster, match=r"\.\./shared/cluster, and a running Docker missing"):
        tool.find()


def test_kind_with_docker(bare_machine: Path) -> None:
    program(bare_machine, "kind")
    program(bare_machine, "docker")
    assert tool.find() == Tool(None)


def test_a_folder_without_the_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(tool.VARIABLE, str(tmp_path))
    with pytest.raises(NoCluster, match="there is no program `up` in it"):
        tool.find()


def test_the_tool_needs_go_only_where_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bare_machine: Path
) -> None:
    folder = cluster_tool(tmp_path, prebuilt=False)
    monkeypatch.setenv(tool.VARIABLE, str(folder))
    program(bare_machine, "openssl")
    with pytest.raises(NoCluster, match="there is no Go: install Go"):
        tool.find()
    program(bare_machine, "go")
    assert tool.find() == Tool(folder)
    (bare_machine / "go").unlink()
    (folder / "prebuilt" / "v1.tar.xz").touch()
    assert tool.find() == Tool(folder)
    (bare_machine / "openssl").unlink()
    with pytest.raises(NoCluster, match="apt-get install openssl"):
        tool.find()


def test_a_real_node_needs_root_and_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = Tool(cluster_tool(tmp_path, prebuilt=True))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoCluster, match="needs root"):
        tool.need_node(found)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(NoCluster, match="apt-get install -y --no-install-recommends containerd runc"):
        tool.need_node(found)


def test_the_fixtures_skip_with_that_message(pytester: pytest.Pytester) -> None:
    conftest = Path(__file__).with_name("conftest.py").read_text()
    pytester.makeconftest(conftest)
    pytester.makepyfile(
        "def test_api(api_cluster): pass\ndef test_kwok(namespace): pass\ndef test_node(node_cluster): pass\n"
    )
    result = pytester.runpytest("-rs", "-p", "no:asyncio")
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines(["*set FEEDMILL_CLUSTER_TOOL to the folder of the cluster tool*"])

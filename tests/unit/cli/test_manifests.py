"""Which pipeline of the manifests a command works on."""

from __future__ import annotations

import pytest
import typer

from feedmill.cli.common import columns
from feedmill.cli.manifests import one_pipeline
from feedmill.resources.collection import Resources
from feedmill.resources.load import load_texts
from feedmill.resources.pipeline import FeedPipeline


def resources(*names: str) -> Resources:
    return load_texts({
        f"{name}.yaml": f"""
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {{name: {name}}}
spec: {{redis: {{managed: {{}}}}, postgres: {{managed: {{}}}}}}
"""
        for name in names
    })  # fmt: skip


def is_a(pipeline: FeedPipeline) -> bool:
    return pipeline.key == ("default", "a")


def test_the_only_one_needs_no_name() -> None:
    assert one_pipeline(resources("a"), None).key == ("default", "a")
    assert one_pipeline(resources("a", "b"), "default/b").key == ("default", "b")


def test_the_only_one_that_is_meant_needs_no_name_and_a_name_goes_before_that() -> None:
    assert one_pipeline(resources("a", "b"), None, is_a).key == ("default", "a")
    assert one_pipeline(resources("a", "b"), "default/b", is_a).key == ("default", "b")


@pytest.mark.parametrize(
    ("names", "asked", "told"),
    [
        (("a", "b"), None, "--pipeline : "),
        (("a", "b"), "default/c", "--pipeline default/c: "),
        (("a",), "a", "--pipeline a: "),
    ],
)
def test_none_or_several_end_the_command(
    names: tuple[str, ...], asked: str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        one_pipeline(resources(*names), asked)
    assert ended.value.exit_code == 2
    said = capsys.readouterr().err
    assert said.startswith(told)
    for name in names:
        assert f"default/{name}" in said


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([("ID", "SIZE"), ("long", "1"), ("x", "")]) == "ID    SIZE\nlong  1\nx"

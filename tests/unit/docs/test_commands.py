"""The commands in the pages are ones that the programs take, and the figures and causes ones that there are."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from typer.main import get_command

from feedmill.cli.main import COMMANDS, load
from feedmill.resources.feed import FeedSpec
from feedmill.resources.pipeline import PipelineSpec
from feedmill.resources.shape import shape_at
from feedmill.shared import events
from feedmill_operator.plugin.logline import LEVELS
from feedmill_operator.plugin.logs import check_role
from feedmill_operator.plugin.main import app
from feedmill_operator.plugin.text import duration

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
_FENCE = re.compile(r"^ *```(?:console|sh|bash|shell|text)?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


def commands(page: Path, program: str = "kubectl feedmill") -> list[list[str]]:
    """Words of each command of a program in a page, in blocks and in lines, without comments and pipes."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in _FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += _INLINE.findall(re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))
    found = []
    for line in lines:
        words = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
        if words.startswith(f"{program} "):
            lexer = shlex.shlex(words, posix=True, punctuation_chars="|;&><")
            lexer.whitespace_split = True
            until = list(lexer)
            ends = [place for place, word in enumerate(until) if set(word) <= set("|;&><")]
            found.append(until[len(program.split()) : ends[0] if ends else None])
    return found


WITH_COMMANDS = [page for page in PAGES if commands(page)]


def test_commands_are_found() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 40
    assert sum(len(commands(page, "feedmill")) for page in PAGES) > 90
    # kubectl feedmill asks the processes; it knows nothing of the operator.
    runbooks = {page.stem for page in RUNBOOKS if not page.stem.startswith("FeedmillOperator")} - {
        "FeedmillDeadLetters"
    }
    assert runbooks <= {page.stem for page in WITH_COMMANDS}


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_kubectl_feedmill_takes_them(page: Path) -> None:
    program: Any = get_command(app)
    for head, *rest in commands(page):
        if head.startswith("-"):
            continue
        where = " ".join(["kubectl feedmill", head, *rest])
        assert head in program.commands, where
        # Named without a target in the text: `kubectl feedmill pause`.
        words = rest or (["FEED"] if head == "logs" else [])
        given = program.commands[head].make_context(head, words).params
        if given.get("role"):
            assert check_role(given["role"]) == given["role"], where
        if given.get("level"):
            assert given["level"] in LEVELS, where
        for option in ("since", "timeout"):
            if given.get(option):
                assert duration(given[option], f"--{option}") > 0, where


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_feedmill_takes_the_options_of_its_commands(page: Path) -> None:
    for head, *rest in commands(page, "feedmill"):
        where = " ".join(["feedmill", head, *rest])
        if head.startswith("-") or rest[:1] == ["ROLE"]:
            continue
        assert head in COMMANDS, where
        command: Any = load(head)
        if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, where
            command = command.commands[rest.pop(0)]
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"-h", "--help"}
        for word in rest:
            assert not word.startswith("-") or word == "-" or word.partition("=")[0] in known, where


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_metrics_that_a_runbook_names_exist(page: Path) -> None:
    for module in ("receiver.metrics", "distributor.metrics", "processor.measures", "shared.reload"):
        importlib.import_module(f"feedmill.{module}")
    known = prometheus_client.REGISTRY._names_to_collectors
    for metric in re.findall(
        r"\bfeedmill_(?:receiver|distributor|processor|config)_[a-z_]+\b", page.read_text("utf-8")
    ):
        assert metric in known, metric


def test_the_runbook_of_gaps_names_every_cause() -> None:
    source = Path(events.__file__).read_text(encoding="utf-8")
    told = re.search(r'cause: str\n    """([a-z_ |]+)\."""', source)
    assert told is not None
    page = (ROOT / "docs" / "runbooks" / "FeedmillGaps.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) == set(told[1].split(" | "))


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_fields_that_a_runbook_asks_to_change_exist(page: Path) -> None:
    for code in _INLINE.findall(page.read_text(encoding="utf-8")):
        found = re.fullmatch(r"(spec\.)?([a-z][a-zA-Z]+(?:\.[a-zA-Z]+)*)(: .*)?", code)
        if found is None:
            continue
        path = tuple(found[2].split("."))
        if found[1] or path[0] in ("receiver", "distributor", "processor", "redis", "postgres"):
            assert any(shape_at(model, path) for model in (FeedSpec, PipelineSpec)), code


def test_a_field_that_is_not_there_would_be_noticed() -> None:
    assert shape_at(FeedSpec, ("receiver", "resources", "limits", "memory"))
    assert shape_at(FeedSpec, ("receiver", "shard")) is None

"""Help for newcomers: every command and option says what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from feedmill.cli.main import COMMANDS, LOOK, OPERATE, RUN, app, load
from feedmill.resources.load import load_texts

runner = CliRunner(env={"COLUMNS": "120", "TERMINAL_WIDTH": "120"})


def shown(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments), prog_name="feedmill")
    assert result.exit_code == 0, result.output
    return result.output


def commands() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name in COMMANDS:
        command = load(name)
        found.append((name, command))
        found.extend((f"{name} {sub}", inner) for sub, inner in getattr(command, "commands", {}).items())
    return found


def test_commands_stand_in_three_groups() -> None:
    text = shown("--help")
    places = [text.index(f"{title}:") for title in (RUN, LOOK, OPERATE)]
    assert places == sorted(places)
    for name, lazy in COMMANDS.items():
        listed = any(line.split()[:1] == [name] and lazy.summary in line for line in text.splitlines())
        assert listed is not lazy.hidden, name
    assert "REDIS_URL" in text
    assert "Exit codes: 0 done, 1 failed, 2" in text


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_option_says_what_it_takes(name: str, command: Any) -> None:
    text = shown(*name.split(), "--help")
    options = text[text.index("Options:") :]
    for bare in ("<list", "<path>", "<str>", "<int", "<float"):
        assert bare not in options, "a metavar says what to write, a type does not"
    assert "╭" not in text, "plain text, as everywhere else"
    assert command.help, name
    for parameter in command.params:
        if parameter.param_type_name == "option" and "--help" not in parameter.opts:
            assert parameter.help, f"{name} {parameter.opts}"


def test_the_manifest_in_the_help_of_up_is_a_valid_one() -> None:
    text = shown("up", "--help")
    lines = text[text.index("apiVersion:") : text.index("Options:")].splitlines()
    manifest = "\n".join(line.removeprefix("    ") for line in lines)
    assert yaml.safe_load(manifest)["kind"] == "ExchangeFeed"
    assert list(load_texts({"help": manifest}, local=True).feeds) == [("default", "binance-spot")]


def test_a_misspelt_command_is_guessed() -> None:
    result = runner.invoke(app, ["stats"], prog_name="feedmill")
    assert result.exit_code == 2
    assert "No such command 'stats'. Did you mean 'status'?" in result.output


def test_what_is_generated_can_be_checked(tmp_path: Any) -> None:
    check = ["docs", "--check", "--root", str(tmp_path)]
    result = runner.invoke(app, check)
    assert result.exit_code == 1
    assert "docs/reference/resources.md is not up to date: run `make docs`" in result.output
    assert "crds/exchangefeeds.yaml is not up to date" in result.output
    assert not any(tmp_path.iterdir())
    assert runner.invoke(app, ["docs", "--root", str(tmp_path)]).exit_code == 0
    assert runner.invoke(app, check).exit_code == 0
    (tmp_path / "crds" / "exchangefeeds.yaml").write_text("edited")
    assert runner.invoke(app, check).exit_code == 1


def test_what_is_generated_is_up_to_date() -> None:
    root = Path(__file__).parents[3]
    result = runner.invoke(app, ["docs", "--check", "--root", str(root)])
    assert result.exit_code == 0, result.output

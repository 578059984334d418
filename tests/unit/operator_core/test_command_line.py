"""The operator's command: what it says to wrong options, and its environment variables."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from feedmill_operator.main import app


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resync", "soon"], "--resync 'soon': give a duration such as 30s"),
        (["--log-level", "loud"], "--log-level 'loud': give one of debug, info, warning, error"),
        (["--lease-duration", "3s"], "must grow in this order"),
    ],
)
def test_the_command_ends_with_2_and_says_why(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["run", "--operand-image", "services:1", *arguments])
    assert done.exit_code == 2
    assert message in done.output


def test_every_option_can_come_from_the_environment() -> None:
    environment = {"FEEDMILL_OPERATOR_OPERAND_IMAGE": "services:1", "FEEDMILL_OPERATOR_WORKERS": "0"}
    done = CliRunner().invoke(app, ["run"], env=environment)
    assert "--workers 0" in done.output

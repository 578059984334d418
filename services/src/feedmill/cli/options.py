"""Options that many commands have alike."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


Shape = Annotated[Output, typer.Option("--output", "-o", help="text for people, json for programs.")]
Files = Annotated[
    list[Path],
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="File or folder with the resources (repeat for more).",
        show_default=False,
    ),
]
"""Of a command that cannot do without the resources."""

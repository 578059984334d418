"""What the commands of ``feedmill accounts`` share: their options, the keys, and the shape of an answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from feedmill.accounts.keyring import KeyFile, Keyring
from feedmill.cli.options import Output

AccountName = Annotated[
    str, typer.Argument(metavar="NAME", help="The account: NAME, or NAMESPACE/NAME.", show_default=False)
]
KekFile = Annotated[
    Path,
    typer.Option(
        "--kek-file",
        metavar="FILE",
        envvar="FEEDMILL_KEK_FILE",
        help="Key-encryption keys, one a line: ID and 32 bytes as base64.",
        show_default=False,
    ),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        help="The secrets: a file, - for standard input, or a folder with a file for each.",
        show_default="asked for",
    ),
]


def keyring(path: Path) -> Keyring:
    return KeyFile(path, "--kek-file").ring()


@contextlib.contextmanager
def answer(output: Output) -> Iterator[dict[str, Any]]:
    """Gathers ``text`` and whatever else is said, and says it in the shape that is wanted."""
    said: dict[str, Any] = {}
    yield said
    text = said.pop("text")
    typer.echo(json.dumps(said, indent=2) if output is Output.JSON else text)

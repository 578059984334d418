"""``feedmill docs``: writes the pages of the documentation that are made from code (hidden; for developers and CI)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feedmill.resources.reference import reference

PAGE = Path("docs/reference/resources.md")


def docs(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")] = PAGE,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail when the page is not up to date.")
    ] = False,
) -> None:
    """Generate docs/reference/resources.md from the resource models."""
    text = reference()
    if check:
        if not output.is_file() or output.read_text(encoding="utf-8") != text:
            typer.echo(f"{output} is not up to date: run feedmill docs", err=True)
            raise typer.Exit(1)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {output}")

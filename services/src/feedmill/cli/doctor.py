"""``feedmill doctor``: check this machine, one line each, with a remedy."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from feedmill.cli.common import DATA_DIR, DataDir, command, folder, told
from feedmill.local.doctor.check import Check, Grade

STYLE = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "red"}


@told
def doctor(
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="A manifest: its exchanges are reached for too.", show_default=False
        ),
    ] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    secrets_dir: Annotated[
        Path | None,
        typer.Option("--secrets-dir", metavar="DIR", help="Folder of Secrets (SECRET/KEY) that the manifest names."),
    ] = None,
    kek_file: Annotated[
        Path | None,
        typer.Option(
            "--kek-file",
            metavar="FILE",
            envvar="FEEDMILL_KEK_FILE",
            help="Key-encryption keys, for the accounts of feedmill accounts.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check this machine: Python, memory, disk, rights, the embedded servers (really started, in a temporary folder),
    the servers of REDIS_URL and DATABASE_URL where set, the clock, and with -f the way to the exchanges and, with
    --secrets-dir, what the keys of the manifest's accounts may do (each exchange is asked), where its backups go and
    what seals them, and bot and chat of its notifications.

    Exit code: 0 nothing fails, 1 something does, 2 the manifest is wrong.

    \b
    feedmill doctor
    feedmill doctor -f feed.yaml
    feedmill doctor -f accounts.yaml --secrets-dir secrets
    """
    found: list[Check] = []
    for check in _all(files or [], folder(data_dir), secrets_dir, kek_file):
        found.append(check)
        if not as_json:
            _print(check)
    failed = sum(check.grade is Grade.FAIL for check in found)
    warned = sum(check.grade is Grade.WARN for check in found)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(check) for check in found], indent=2))
    else:
        _print_end(failed, warned)
    raise typer.Exit(1 if failed else 0)


def _all(files: list[Path], data_dir: Path, secrets_dir: Path | None, kek_file: Path | None) -> Iterator[Check]:
    from feedmill.local.doctor import machine, servers
    from feedmill.resources.collection import Resources

    resources = Resources()
    if files:
        from feedmill.resources.load import load_files

        resources = load_files(files, local=True)
    yield from machine.checks(data_dir)
    yield from servers.checks(data_dir, os.environ)
    listened = [item for item in resources.accounts.values() if not item.spec.suspend]
    if resources.feeds or listened:
        from feedmill.local.doctor import venues

        yield from asyncio.run(venues.checks(resources.feeds.values(), listened))
    if listened or kek_file is not None:
        from feedmill.local.doctor import accounts

        if kek_file is not None:
            yield accounts.keys(kek_file)
        policies = [(item, resources.pool_of(item).permissions.withdraw) for item in listened]
        yield from asyncio.run(accounts.checks(policies, secrets_dir))
    if any(item.spec.backup is not None for item in resources.pipelines.values()):
        from feedmill.local.doctor import backups

        yield from asyncio.run(backups.checks(resources, secrets_dir))
    if any(item.spec.notifications is not None for item in resources.pipelines.values()):
        from feedmill.local.doctor import notifications

        yield from asyncio.run(notifications.checks(resources, secrets_dir))


def _print(check: Check) -> None:
    typer.secho(f"{check.grade.value:<5}", fg=STYLE[check.grade], bold=True, nl=False)
    typer.echo(f" {check.what}: {check.found}")
    if check.remedy:
        typer.echo(f"      -> {check.remedy}")


def _print_end(failed: int, warned: int) -> None:
    if failed:
        typer.echo(f"\n{failed} to mend{f', {warned} to look at' if warned else ''}.")
    elif warned:
        typer.echo(f"\nWorks; {warned} to look at.")
    else:
        typer.echo(f"\nAll is well. Next: {command()} demo")

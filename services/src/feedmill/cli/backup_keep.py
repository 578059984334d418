"""``feedmill backup prune`` and ``feedmill backup key``: what is kept of backups, and what opens them."""

from __future__ import annotations

import base64
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.accounts.keyring import parse_keyring
from feedmill.cli.backup_run import (
    Chosen,
    Config,
    StatusFile,
    end_with,
    logger,
    no_database,
    opened_target,
)
from feedmill.cli.common import BAD_CONFIG, DATA_DIR, fail, human_bytes, told
from feedmill.cli.options import Output, Shape
from feedmill.cli.query import PipelineName, SecretsFolder
from feedmill.general.backup.status import RunStatus, moment
from feedmill.local.embedded.files import write_private
from feedmill.shared.config import ConfigError, read_text

if TYPE_CHECKING:
    from feedmill.general.backup.prune import Pruned


@told
def prune(
    config: Config,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Tell what would be deleted, and delete nothing.")
    ] = False,
    output: Shape = Output.TEXT,
    status_file: StatusFile = None,
) -> None:
    """Delete what spec.backup.retention does not keep: too old or too many, but never the newest good one of a kind,
    nor the newest one that a drill has proven.

    Log that no kept base backup needs goes too, and what backups that were cut off left there two days ago or earlier.

    \b
    feedmill backup prune -c feed.yaml --secrets-dir secrets --dry-run
    """
    chosen = Chosen.of(config, pipeline, secrets_dir, DATA_DIR)
    status = RunStatus(status_file)
    logger("backup")

    async def work(_: str) -> tuple[Pruned, str]:
        from feedmill.general.backup.prune import prune
        from feedmill.shared.clock import now_ns

        async with opened_target(chosen) as (target, _ring):
            pruned = await prune(target.store, target.names, target.spec.retention, now_ns(), dry_run=dry_run)
            return pruned, target.store.where

    pruned, where = end_with("backup prune", status, no_database, work)
    document = {"destination": where, "dryRun": dry_run, **_told(pruned)}
    said = _line(pruned, dry_run)
    status.succeeded(said, document)
    if output is Output.JSON:
        typer.echo(json.dumps(document, indent=2))
        return
    for decision in pruned.plan.backups:
        each = decision.entry.manifest
        word = "keep  " if decision.keep else "delete"
        typer.echo(f"{word}  {each.id}  of {moment(each.snapshot_ns)}  {human_bytes(each.size_bytes)}  {decision.why}")
    for wrong in pruned.unreadable:
        typer.echo(f"left alone: {wrong}")
    typer.echo(said)


def _line(pruned: Pruned, dry_run: bool) -> str:
    count = sum(1 for decision in pruned.plan.backups if not decision.keep)
    more = len(pruned.plan.leftovers) + pruned.unfinished
    said = (
        f"{'would delete' if dry_run else 'deleted'} {count} of {len(pruned.plan.backups)} backups, {pruned.wal_files} "
        f"files of the log and {more} leftovers: {human_bytes(pruned.deleted_bytes)}"
    )
    if pruned.unreadable:
        said += f"; {len(pruned.unreadable)} manifests cannot be read, so those backups and the whole log stay"
    return said


def _told(pruned: Pruned) -> dict[str, Any]:
    return {
        "backups": [
            {"id": decision.entry.manifest.id, "keep": decision.keep, "why": decision.why}
            for decision in pruned.plan.backups
        ],
        "walFiles": pruned.wal_files,
        "leftovers": [found.name for found in pruned.plan.leftovers],
        "unfinishedUploads": pruned.unfinished,
        "deletedBytes": pruned.deleted_bytes,
        "unreadable": list(pruned.unreadable),
    }


@told
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The key file: SECRET/KEY below --secrets-dir.")],
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Put a new key first in a file that is there; the others still open.")
    ] = False,
) -> None:
    """Make the key file that seals backups (spec.backup.encryption.keySecretRef), or a new key in it.

    The key is not shown. Without it no backup can be read: keep a copy where neither the cluster nor the destination
    is. On a cluster, make the Secret from the file: kubectl create secret generic backup-key --from-file=key=FILE.
    After --rotate, keep the older lines until every backup and all log sealed with them are gone, which takes
    spec.backup.retention.maxAge (feedmill backup list shows the key of each backup).

    \b
    feedmill backup key secrets/backup-key/key
    feedmill backup key secrets/backup-key/key --rotate
    """
    path = file.expanduser().absolute()
    former = ""
    if path.exists():
        if not rotate:
            fail(f"{path} is there already: add --rotate for a new key in it, or name another file", BAD_CONFIG)
        former = read_text(path, "the key file") + "\n"
    elif rotate:
        fail(f"{path} is not there: leave --rotate out to make it", BAD_CONFIG)
    ids = parse_keyring(former, str(path)).ids if former else ()
    new = f"{datetime.now(UTC):%Y-%m-%d}"
    if new in ids:
        new += f"-{secrets.token_hex(2)}"
    text = f"{new} {base64.b64encode(os.urandom(32)).decode()}\n{former}"
    parse_keyring(text, str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): check the folder and its owner") from None
    others = f"; {', '.join(ids)} still open what they sealed" if ids else ""
    typer.echo(f"{path}: key {new} seals from now on{others}. Keep a copy far from the backups.")

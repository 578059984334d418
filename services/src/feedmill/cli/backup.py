"""``feedmill backup``: make backups, list them, prove them, restore them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.cli.backup_keep import key, prune
from feedmill.cli.backup_run import (
    BackupId,
    Chosen,
    Config,
    HealthHost,
    HealthPort,
    Shown,
    StatusFile,
    end_with,
    logger,
    no_database,
    opened_target,
    parse_time,
)
from feedmill.cli.backup_watch import watch
from feedmill.cli.common import DATA_DIR, DataDir, columns, human_bytes, human_seconds, told
from feedmill.cli.options import Output, Shape
from feedmill.cli.query import PipelineName, SecretsFolder
from feedmill.general.backup.status import RunStatus, moment, of_backup

if TYPE_CHECKING:
    from feedmill.accounts.keyring import Keyring
    from feedmill.general.backup.catalogue import Catalogue, Entry
    from feedmill.general.backup.manifest import Manifest
    from feedmill.general.backup.target import Target
    from feedmill.general.backup.wal_plan import Reach

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Backups of a pipeline's PostgreSQL: sealed, stored in a folder, S3 or Backblaze B2, and proven by drills.

Where they go, what seals them and how long they are kept stands in spec.backup of the FeedPipeline; its Secrets are
files in --secrets-dir (SECRET/KEY), as mounted in a pod. A backup without its manifest does not exist, and the
destination alone is enough to restore: only the key must be kept elsewhere.

\b
  feedmill backup key secrets/backup-key/key              once; keep a copy far from the backups
  feedmill backup run -c feed.yaml --secrets-dir secrets
  feedmill backup list -c feed.yaml --secrets-dir secrets
  feedmill backup verify -c feed.yaml --secrets-dir secrets       a drill: restored into a scratch server, compared
  feedmill backup restore -c feed.yaml --secrets-dir secrets      into an empty database

The database is the one that feedmill up would use: DATABASE_URL, the pipeline's urlSecretRef in --secrets-dir, or the
embedded one of --data-dir. feedmill up and the operator do the schedule themselves.
Exit codes: 0 done, 1 failed, 2 a file, a setting or a choice is wrong (the message says which, and the remedy).""",
)


class What(StrEnum):
    LOGICAL = "logical"
    BASE = "base"


Kind = Annotated[
    What,
    typer.Option(
        "--kind",
        help="logical: all tables as of one moment; base: the server's files, to which the log is added "
        "(while feedmill run backup receives it).",
    ),
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="TIME", help="Restore to this moment (UTC): 2026-11-25T03:00:00Z. Needs the log."),
]
Scratch = Annotated[
    Path | None,
    typer.Option("--scratch-dir", metavar="DIR", help="Where a scratch server lies.", show_default="TMPDIR"),
]
HOST = "127.0.0.1"


@told
def run(
    config: Config,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
    kind: Kind = What.LOGICAL,
    data_dir: DataDir = DATA_DIR,
    output: Shape = Output.TEXT,
    status_file: StatusFile = None,
    health_host: HealthHost = HOST,
    health_port: HealthPort = None,
) -> None:
    """Make a backup now. It works beside everything else; maintenance drops no partition meanwhile.

    \b
    feedmill backup run -c feed.yaml --secrets-dir secrets
    feedmill backup run -c feed.yaml --secrets-dir secrets --kind base
    """
    chosen = Chosen.of(config, pipeline, secrets_dir, data_dir)
    status, log = RunStatus(status_file), logger("backup")

    async def work(url: str) -> tuple[Manifest, str]:
        async with opened_target(chosen) as (target, ring):
            with Shown(status, log) as shown:
                return await _make(kind, target, ring, url, log, shown), target.store.where

    manifest, where = end_with("backup", status, chosen.url, work, health_host, health_port)
    size, rows = human_bytes(manifest.size_bytes), sum(manifest.row_counts.values())
    content = f"{rows} rows as of {moment(manifest.snapshot_ns)}" if rows else f"from {moment(manifest.snapshot_ns)} on"
    said = f"backup {manifest.id}: {size}, {content}, took {human_seconds(manifest.seconds)}, in {where}"
    status.succeeded(said, of_backup(manifest, where))
    typer.echo(json.dumps(status.document, indent=2) if output is Output.JSON else said)


async def _make(kind: What, target: Target, ring: Keyring, url: str, log: Any, shown: Shown) -> Manifest:
    from feedmill.general.backup import record
    from feedmill.general.backup.stores.base import StoreError
    from feedmill.shared import postgres

    try:
        await target.store.check()  # Before a dump of hours: what is wrong with the destination is said at once.
    except StoreError as error:
        with contextlib.suppress(*postgres.RETRYABLE, postgres.SchemaBehind):
            await record.not_begun(url, target.names, kind.value, destination=target.store.where, error=str(error))
        raise
    if kind is What.BASE:
        from feedmill.general.backup.base import run_base
        from feedmill.shared.database_url import DatabaseUrl

        return await run_base(DatabaseUrl(url), target.store, ring, target.names, progress=shown)
    from feedmill.general.backup.catalogue import read_catalogue
    from feedmill.general.backup.logical import run_logical

    last = (await read_catalogue(target.store, target.names)).newest("logical")
    expected = last.manifest.plain_bytes if last is not None else 0
    return await run_logical(target.store, target.names, ring, url, log=log, progress=shown, expected=expected)


@told
def list_(
    config: Config,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
    output: Shape = Output.TEXT,
) -> None:
    """List what the destination holds, the newest first. The database is not asked.

    STATE: proven = a drill restored it; whole = its object is there in full; damaged = it is not; failed = the last
    drill did not pass.

    \b
    feedmill backup list -c feed.yaml --secrets-dir secrets
    feedmill backup list -c feed.yaml --secrets-dir secrets -o json | jq -r .backups[0].id
    """
    chosen = Chosen.of(config, pipeline, secrets_dir, DATA_DIR)

    async def work(_: str) -> tuple[Catalogue, dict[str, Reach | str], str]:
        from feedmill.general.backup.catalogue import read_catalogue
        from feedmill.general.backup.wal_plan import logs_of, reaches

        async with opened_target(chosen) as (target, _ring):
            catalogue = await read_catalogue(target.store, target.names)
            bases = [entry.manifest for entry in catalogue.of("base") if entry.whole]
            logs = logs_of(await target.store.list(target.names.wals)) if bases else {}
            return catalogue, reaches(bases, logs), target.store.where

    catalogue, reached, where = end_with("backup list", RunStatus(None), no_database, work)
    if output is Output.JSON:
        typer.echo(json.dumps({"destination": where, **_listed(catalogue, reached)}, indent=2))
        return
    if not catalogue.entries:
        typer.echo(f"{where}: no backups yet: make one with feedmill backup run")
    rows = [("ID", "CONTENT OF", "SIZE", "ROWS", "TOOK", "SCHEMA", "KEY", "STATE")]
    for entry in catalogue.entries:
        each = entry.manifest
        rows.append(
            (
                each.id, moment(each.snapshot_ns), human_bytes(each.size_bytes),
                str(sum(each.row_counts.values())) if each.row_counts else "-", human_seconds(each.seconds),
                each.schema_version, each.key_id, _state(entry),
            )
        )  # fmt: skip
    if len(rows) > 1:
        typer.echo(columns(rows))
    for wrong in (*catalogue.unreadable, *catalogue.unreadable_drills):
        typer.echo(f"not readable: {wrong}")
    for backup_id, reach in reached.items():
        typer.echo(_any_moment(backup_id, reach))


def _any_moment(backup_id: str, reach: Reach | str) -> str:
    if isinstance(reach, str):
        return f"{backup_id}: no moment can be restored from it: {reach}"
    said = f"{backup_id}: any moment from {moment(reach.base.ended_ns)} to about {moment(reach.until_ns)}"
    return f"{said}; {reach.beyond} files of the log after that follow a gap" if reach.beyond else said


def _state(entry: Entry) -> str:
    if not entry.whole:
        return "damaged"
    if entry.drill is None:
        return "whole"
    return "proven" if entry.drill.passed else "failed"


def _listed(catalogue: Catalogue, reached: Mapping[str, Reach | str]) -> dict[str, Any]:
    backups = [
        {
            "id": entry.manifest.id,
            "kind": entry.manifest.kind,
            "state": _state(entry),
            "contentAt": moment(entry.manifest.snapshot_ns),
            "object": entry.manifest.object,
            "sizeBytes": entry.manifest.size_bytes,
            "storedBytes": entry.stored_bytes,
            "sha256": entry.manifest.sha256,
            "keyId": entry.manifest.key_id,
            "schemaVersion": entry.manifest.schema_version,
            "seconds": round(entry.manifest.seconds, 3),
            "rows": entry.manifest.row_counts,
            "drill": None if entry.drill is None else {"id": entry.drill.id, "passed": entry.drill.passed},
            "anyMomentTo": _reached_to(reached.get(entry.manifest.id)),
        }
        for entry in catalogue.entries
    ]
    unreadable = [*catalogue.unreadable, *catalogue.unreadable_drills]
    return {"backups": backups, "unreadable": unreadable, "leftovers": len(catalogue.leftovers)}


def _reached_to(reach: Reach | str | None) -> str | None:
    return None if reach is None or isinstance(reach, str) else moment(reach.until_ns)


@told
def verify(
    config: Config,
    backup: BackupId = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
    to: To = None,
    scratch: Scratch = None,
    data_dir: DataDir = DATA_DIR,
    output: Shape = Output.TEXT,
    status_file: StatusFile = None,
    health_host: HealthHost = HOST,
    health_port: HealthPort = None,
) -> None:
    """Prove a backup: restore it into a scratch server, compare rows, contents and schema, and record the drill.

    The scratch server is gone afterwards; the pipeline's database is only told of the result, where it can be reached.

    \b
    feedmill backup verify -c feed.yaml --secrets-dir secrets
    feedmill backup verify -c feed.yaml --secrets-dir secrets --backup 20261126T030000Z-logical-3f9a1c
    """
    chosen = Chosen.of(config, pipeline, secrets_dir, data_dir)
    status, log = RunStatus(status_file), logger("backup")
    to_ns = None if to is None else parse_time(to, "--to")

    async def work(url: str) -> dict[str, Any]:
        from feedmill.general.backup.choice import pick
        from feedmill.general.backup.verify import drill

        async with opened_target(chosen) as (target, ring):
            with Shown(status, log) as shown:
                picked = await pick(target, ring, backup, to_ns, scratch, shown, drill=True)
                done = await drill(
                    picked, target.store, target.names, url or None, _migrate_to, to_ns=to_ns, folder=scratch, log=log,
                    progress=shown,
                )  # fmt: skip
        made = done.drill
        return {
            "backupId": made.backup_id, "drillId": made.id, "rows": sum(made.row_counts.values()),
            "tables": len(made.row_counts), "restoredTo": moment(done.content_ns),
            "seconds": (made.ended_ns - made.started_ns) / 1e9, "destination": target.store.where,
        }  # fmt: skip

    found = end_with("backup verify", status, chosen.url_if_any, work, health_host, health_port)
    said = (
        f"backup {found['backupId']} is proven: {found['rows']} rows in {found['tables']} tables as of "
        f"{found['restoredTo']} restored and equal, took {human_seconds(round(found['seconds'], 1))}"
    )
    status.succeeded(said, {name: value for name, value in found.items() if name != "seconds"})
    typer.echo(json.dumps(status.document, indent=2) if output is Output.JSON else said)


@told
def restore(
    config: Config,
    backup: BackupId = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
    to: To = None,
    scratch: Scratch = None,
    data_dir: DataDir = DATA_DIR,
    output: Shape = Output.TEXT,
    status_file: StatusFile = None,
    health_host: HealthHost = HOST,
    health_port: HealthPort = None,
) -> None:
    """Restore into an empty database: all of it or nothing. Stop the pipeline first (spec.suspend, or feedmill up).

    What happened since the backup is told by gap rows (cause restore) before anything starts; when the feeds run
    again, what the exchanges still offer is fetched, and accounts are reconciled. Cut off at any point, the database
    is marked: nothing works on it until it is restored again. Redis may be the old one or an empty one.

    \b
    feedmill backup restore -c feed.yaml --secrets-dir secrets
    feedmill backup restore -c feed.yaml --secrets-dir secrets --to 2026-11-25T03:00:00Z
    """
    chosen = Chosen.of(config, pipeline, secrets_dir, data_dir)
    settings = chosen.settings()
    status, log = RunStatus(status_file), logger("backup")
    to_ns = None if to is None else parse_time(to, "--to")

    async def work(url: str) -> dict[str, Any]:
        from feedmill.general.backup.choice import opened
        from feedmill.general.backup.restore import require_empty, restore

        await require_empty(url)
        async with opened_target(chosen) as (target, ring):
            with Shown(status, log) as shown:
                async with opened(target, ring, backup, to_ns, scratch, shown) as content:
                    made, rejoined = await restore(
                        content, url, settings, destination=target.store.where, migrate=_migrate(url), to_ns=to_ns,
                        log=log, progress=shown,
                    )  # fmt: skip
        return {
            "backupId": content.backup.id, "rows": sum(made.row_counts.values()), "tables": len(made.row_counts),
            "restoredTo": moment(content.content_ns), "gaps": rejoined.gaps, "accounts": rejoined.accounts,
            "keyIds": list(rejoined.key_ids), "others": list(rejoined.others), "destination": target.store.where,
            "note": content.note,
        }  # fmt: skip

    found = end_with("backup restore", status, chosen.empty_url, work, health_host, health_port)
    said = (
        f"restored {found['rows']} rows in {found['tables']} tables as of {found['restoredTo']} from "
        f"{found['backupId']}; {found['gaps']} gap rows tell of the time since then"
    )
    if found["accounts"]:
        keys = ", ".join(found["keyIds"])
        said += f"; {found['accounts']} accounts are reconciled anew" + (
            f", their secrets need key {keys}" if keys else ""
        )
    if found["note"]:
        said += f"; {found['note']}"
    if found["others"]:
        said += f"; not in the manifests, so nothing is fetched for them: {', '.join(found['others'][:20])}"
    status.succeeded(said, found)
    typer.echo(json.dumps(status.document, indent=2) if output is Output.JSON else said)


def _migrate(url: str) -> Callable[[str], Awaitable[None]]:
    from feedmill.cli.migrate import migrate_sync

    async def migrate(to: str) -> None:
        await asyncio.to_thread(migrate_sync, url, to=to, down=to == "base", restoring=True)

    return migrate


async def _migrate_to(url: str, to: str) -> None:
    from feedmill.cli.migrate import migrate_sync

    await asyncio.to_thread(migrate_sync, url, to=to)


app.command("run", short_help="Make a backup now.")(run)
app.command("list", short_help="List what the destination holds.")(list_)
app.command("verify", short_help="Prove a backup by restoring it into a scratch server.")(verify)
app.command("restore", short_help="Restore into an empty database.")(restore)
app.command("prune", short_help="Delete what spec.backup.retention does not keep.")(prune)
app.command("watch", short_help="Upload the database's log as it is written, until Ctrl-C.")(watch)
app.command("key", short_help="Make the key file that seals backups.")(key)

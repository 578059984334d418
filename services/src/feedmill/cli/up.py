"""``feedmill up``: run the feeds of a manifest on this machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from feedmill.cli.common import (
    BAD_CONFIG,
    DATA_DIR,
    FAILED,
    DataDir,
    command,
    fail,
    folder,
    human_seconds,
    is_terminal,
    seconds,
    told,
)
from feedmill.local import account_view, accounts, notifications
from feedmill.local.account_figures import PoolSeen
from feedmill.local.backups import backup_workloads
from feedmill.local.embedded.files import private_folder, rotate
from feedmill.local.manager import ServiceManager
from feedmill.local.secrets import environment_of, passed_over
from feedmill.local.servers import LocalServers
from feedmill.local.session import LocalSession, Outcome
from feedmill.local.stored import TABLES
from feedmill.local.view import Display, LiveDisplay, PlainDisplay
from feedmill.plan import plan
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.load import load_files
from feedmill.shared import log
from feedmill.shared.tracing import TracingUnavailable, check_installed


@told
def up(
    files: Annotated[
        list[Path],
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Manifest, or folder of manifests (repeat for more).",
            show_default=False,
        ),
    ],
    data_dir: DataDir = DATA_DIR,
    for_: Annotated[
        str | None, typer.Option("--for", help="Stop in order after this long, e.g. 60s, 5m.", metavar="DURATION")
    ] = None,
    is_plain: Annotated[
        bool, typer.Option("--plain", help="Plain lines instead of the live view (as when piped).")
    ] = False,
    no_embedded: Annotated[
        bool, typer.Option("--no-embedded", help="Insist on REDIS_URL and DATABASE_URL; start no server here.")
    ] = False,
    secrets_dir: Annotated[
        Path | None,
        typer.Option("--secrets-dir", metavar="DIR", help="Folder of Secrets (SECRET/KEY), for urlSecretRef."),
    ] = None,
    api_port: Annotated[
        int | None,
        typer.Option(
            "--api-port", min=0, max=65535, metavar="PORT", help="Port of the status API; 8321, or any free one."
        ),
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="Print the services' log lines too (plain mode).")] = False,
    log_level: Annotated[
        str, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
    ] = "info",
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
    """Run the feeds and accounts of a manifest on this machine: exchange to Redis to PostgreSQL.

    Redis and PostgreSQL are started here and keep their data in --data-dir, unless REDIS_URL or DATABASE_URL name your
    own. Ctrl-C stops in order and loses nothing: what was captured is stored first. Ctrl-C twice stops at once; what
    was not stored then is stored at the next start. Exit code: 0 all is stored, 1 something could not be finished.

    \b
    feedmill up -f feed.yaml
    feedmill up -f feeds/ --for 10m --plain
    DATABASE_URL=postgresql://me:secret@db/feeds feedmill up -f feed.yaml
    feedmill up -f accounts.yaml --secrets-dir secrets     (secrets/SECRET/apiKey, secrets/SECRET/apiSecret)

    \b
    Meanwhile, in another terminal:
      feedmill tail --channel Trades
      feedmill query "select * from candles order by open_time desc limit 5"
      feedmill status

    \b
    A whole feed.yaml:
      apiVersion: feedmill.dev/v1alpha1
      kind: ExchangeFeed
      metadata: {name: binance-spot}
      spec:
        pipelineRef: {name: main}
        exchange: {name: binance, market: Spot}       # or UsdM; or deribit, Derivatives
        instruments: {symbols: [BTC-USDT, ETH-USDT]}
        channels: [{name: Trades}, {name: Ticker}, {name: Book, depth: 20}, {name: Candles, interval: 1m}]
    """
    if log_level not in ("debug", "info", "warning", "error"):
        fail(f"--log-level {log_level!r}: write debug, info, warning or error", BAD_CONFIG)
    limit = None if for_ is None else seconds(for_)
    resources = load_files(files, local=True)
    workloads = plan(resources)
    feeds = [feed for _, feed in sorted(resources.feeds.items()) if not feed.spec.suspend]
    if not feeds and not accounts.pools(resources):
        fail(
            "the manifest holds no feed or account to run: add an ExchangeFeed or ExchangeAccount (see examples/), or "
            "end its suspend",
            BAD_CONFIG,
        )
    if any(pipeline.spec.monitoring.tracing for pipeline in resources.pipelines.values()):
        try:
            check_installed()
        except TracingUnavailable as error:
            fail(str(error), BAD_CONFIG)
    home = folder(data_dir)
    environ = environment_of(resources.pipelines.values(), os.environ, secrets_dir)
    without = passed_over(resources.pipelines.values(), os.environ, secrets_dir)
    without += accounts.check(resources, kek_file, secrets_dir)
    workloads, untold = notifications.without_token(workloads, resources, secrets_dir)
    backups, not_made = backup_workloads(resources, secrets_dir)
    workloads += backups
    without += [*untold, *not_made]
    for line in without:
        typer.echo(line, err=True)
    live = is_terminal() and not is_plain
    seen = PoolSeen()
    display: Display = PlainDisplay(more=lambda: account_view.lines(seen.figures))
    if live:
        display = LiveDisplay(hint="Ctrl-C stops in order", more=lambda: account_view.panel(seen.figures))

    def echo(name: str, line: str) -> None:
        display.say(f"{name}: {line}")

    def make_manager() -> ServiceManager:
        return ServiceManager(
            workloads,
            config=files,
            data_dir=home,
            servers=LocalServers(home, environ, embedded=not no_embedded),
            echo=echo if logs and not live else None,
            log_level=log_level,
            environ=environ,
            say=display.say,
            extra_args=() if secrets_dir is None else ("--secrets-dir", str(secrets_dir.absolute())),
            kek_file=kek_file,
        )

    outcome = asyncio.run(_up(make_manager, feeds, display, seen, api_port, limit, data_dir))
    for line in ending(outcome, data_dir):
        typer.echo(line)
    raise typer.Exit(0 if outcome.drain.clean else FAILED)


async def _up(
    make_manager: Callable[[], ServiceManager],
    feeds: Sequence[ExchangeFeed],
    display: Display,
    seen: PoolSeen,
    api_port: int | None,
    limit: float | None,
    data_dir: Path,
) -> Outcome:
    manager = make_manager()
    own_log(manager.log_dir)
    session = LocalSession(manager, feeds, display, api_port=api_port, accounts=seen)

    async def during(running: LocalSession) -> None:
        names = ["/".join(feed.key).removeprefix("default/") for feed in feeds]
        if any(load.role == "accounts" for load in manager.workloads):
            names.append("accounts")
        display.say(f"running {', '.join(names)}; status at {running.api_url}, data and logs in {data_dir}")
        await asyncio.sleep(limit if limit is not None else 10 * 365 * 86400.0)
        display.say(f"ran for {human_seconds(limit)}: stopping in order")

    return await session.run(during)


def ending(outcome: Outcome, data_dir: Path) -> list[str]:
    """What was stored, and what could not be finished."""
    lines = [f"note: {note}" for note in outcome.drain.notes]
    stored, before = outcome.after, outcome.before
    if stored is None:
        early = "ended before all was started: nothing was captured"
        lines.append("what is stored is not known: PostgreSQL did not answer at the end" if outcome.seconds else early)
        return lines
    lines.append(f"stored{'' if outcome.drain.clean else ' so far'} (in {outcome.database or data_dir}):")
    for table in TABLES:
        if table not in stored.rows or not (stored.rows[table] or table in ("trades", "gaps", "dead_letters")):
            continue
        new = stored.since(before, table)
        about = "about " if table in stored.estimated else ""
        more = "" if new is None or new == stored.rows[table] else f" ({new:,} of them in this run)"
        unfinished = f", {stored.open_gaps:,} open" if table == "gaps" and stored.open_gaps else ""
        lines.append(f"  {table.replace('_', ' '):<15} {about}{stored.rows[table]:>12,}{more}{unfinished}")
    where = "" if data_dir == DATA_DIR or outcome.database else f" --data-dir {data_dir}"
    lines.append(f'look at it:  {command()} query{where} "select * from trades limit 10"')  # noqa: S608 (shown, not run)
    return lines


def own_log(folder: Path) -> None:
    """Our own log goes to a file: the terminal is for what people should read."""
    private_folder(folder)
    rotate(folder / "manager.log")
    log.configure("manager", stream=(folder / "manager.log").open("a"), json=True)

"""``feedmill balances``, ``feedmill orders``, ``feedmill fills``: what accounts hold and did, as stored."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.accounts.store import AccountError
from feedmill.cli.account_tables_sql import BALANCES, FILLS, KNOWN, ORDERS
from feedmill.cli.common import DATA_DIR, DataDir, is_terminal, seconds, told
from feedmill.cli.query import Format, Manifests, PipelineName, SecretsFolder, show
from feedmill.cli.where import Where

if TYPE_CHECKING:
    import asyncpg

WIDE = 130
"""Columns of a terminal from which on a table has the ids too."""

Account = Annotated[
    str | None,
    typer.Option(
        "--account", "-a", metavar="NAME", help="One account: its name, or namespace/name.", show_default="all"
    ),
]
Instrument = Annotated[
    str | None, typer.Option("--instrument", "-i", metavar="SYMBOL", help="One instrument.", show_default="all")
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="DURATION", help="Not older than this: 15m, 1h, 7d.", show_default="any age"),
]
Output = Annotated[Format, typer.Option("--format", "-o", help="auto: a table on a terminal, else csv.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, metavar="NUMBER", help="The newest so many rows.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Seconds the question may take.")]


@told
def balances(
    account: Account = None,
    asset: Annotated[
        str | None, typer.Option("--asset", metavar="ASSET", help="One asset.", show_default="all")
    ] = None,
    empty: Annotated[bool, typer.Option("--empty", help="Also assets of which nothing is held.")] = False,
    data_dir: DataDir = DATA_DIR,
    output: Output = Format.AUTO,
    limit: Limit = 200,
    timeout: Timeout = 60.0,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Show what accounts hold of each asset, as last told by the venue.

    FREE and LOCKED are empty where a venue does not tell them apart. Asks the stored data and not the venue: works
    while feedmill up runs and while it does not. How balances came about is in the table balance_history.

    \b
    feedmill balances
    feedmill balances --account main --asset USDT
    feedmill balances -o json
    """
    where = Where(data_dir, config, pipeline, secrets_dir)
    _ask(where, BALANCES, (account, asset, empty), output, limit, timeout)


@told
def orders(
    account: Account = None,
    instrument: Instrument = None,
    since: Since = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that can still be filled.")] = False,
    data_dir: DataDir = DATA_DIR,
    output: Output = Format.AUTO,
    limit: Limit = 200,
    timeout: Timeout = 60.0,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Show orders as they stand, the one that changed last first.

    Each earlier state of an order is in the table order_history. Tables are for people: ids from 130 columns on, times
    in UTC, no zeros at the end of numbers. -o csv and json have all as the venue told it.

    \b
    feedmill orders --open
    feedmill orders --account main --instrument BTC-USDT --since 1d
    feedmill orders -o json --limit 1000
    """
    arguments = (account, instrument, _since_ns(since), only_open)
    _ask(Where(data_dir, config, pipeline, secrets_dir), ORDERS, arguments, output, limit, timeout)


@told
def fills(
    account: Account = None,
    instrument: Instrument = None,
    since: Since = None,
    order: Annotated[
        str | None, typer.Option("--order", metavar="ID", help="Those of one order.", show_default="all")
    ] = None,
    data_dir: DataDir = DATA_DIR,
    output: Output = Format.AUTO,
    limit: Limit = 200,
    timeout: Timeout = 60.0,
    config: Manifests = None,
    pipeline: PipelineName = None,
    secrets_dir: SecretsFolder = None,
) -> None:
    """Show executions of orders, the latest first. A trade with oneself is two, one for each order.

    Tables are for people: ids from 130 columns on, times in UTC, no zeros at the end of numbers. -o csv and json have
    all as the venue told it.

    FEE is what was paid, in FEE_ASSET; below 0 it is a rebate, empty: not told yet. The profit that fills realised is
    in the tables results and result_fees.

    \b
    feedmill fills --since 1h
    feedmill fills --account main --instrument BTC-USDT --order 123456
    feedmill fills -o csv > fills.csv
    """
    arguments = (account, instrument, _since_ns(since), order)
    _ask(Where(data_dir, config, pipeline, secrets_dir), FILLS, arguments, output, limit, timeout)


def _since_ns(text: str | None) -> int:
    return 0 if text is None else time.time_ns() - int(seconds(text) * 1_000_000_000)


def _ask(
    where: Where,
    statements: tuple[str, str, str],
    arguments: tuple[Any, ...],
    output: Format,
    limit: int,
    timeout: float,
) -> None:
    shape = output if output is not Format.AUTO else (Format.TABLE if is_terminal() else Format.CSV)
    is_table = shape is Format.TABLE
    statement = statements[2 if not is_table else shutil.get_terminal_size().columns >= WIDE]
    # One more than wanted, so that a table can say that there are more.
    wanted = limit + 1 if is_table else limit

    async def known(connection: asyncpg.Connection) -> None:
        row = await connection.fetchrow(KNOWN, arguments[0])
        assert row is not None
        if not row["all"]:
            typer.echo("no accounts: feedmill accounts add makes one", err=True)
        elif not row["named"]:
            raise AccountError(
                f"--account {arguments[0]}: there is none of that name: feedmill accounts list shows those there are"
            )

    with where.url() as url:
        Where.ask(url, "feedmill-accounts", known)
        asyncio.run(show(url, statement, shape, limit, timeout, (*arguments, wanted), tight=("account", "symbol")))

"""``feedmill``: the command line. Each command's code is imported only when that command runs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from feedmill import __version__

HELP = """Cryptocurrency exchange feeds from a manifest: WebSocket to Redis Streams to PostgreSQL, nothing lost, nothing
doubled, every gap visible as data.

Start here (no internet, no database needed):

\b
  feedmill demo                     simulated exchanges through the whole pipeline, checked at the end
  feedmill up -f feed.yaml          run the feeds of a manifest on this machine (its --help shows a manifest)
  feedmill query "select * from trades limit 5"

Settings from the environment: REDIS_URL and DATABASE_URL name servers of your own; REDIS_URL_FILE and DATABASE_URL_FILE
name files that hold the URLs. Without them Redis and PostgreSQL are started here, with their data in --data-dir.
Exit codes: 0 done, 1 failed, 2 a file, a setting or an option is wrong (the message says which, and the remedy).
"""


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command's code is, and its line in the list of commands."""

    module: str
    attribute: str
    summary: str
    panel: str
    hidden: bool = False


RUN, LOOK, OPERATE = "Run feeds", "Look at the data", "Operate and check"
COMMANDS: dict[str, Lazy] = {
    "up": Lazy("feedmill.cli.up", "up", "Run the feeds and accounts of a manifest here.", RUN),
    "demo": Lazy("feedmill.cli.demo", "demo", "Show the whole pipeline on simulated exchanges, and check it.", RUN),
    "simulate": Lazy("feedmill.cli.simulate", "simulate", "Run simulated exchanges with faults on demand.", RUN),
    "status": Lazy("feedmill.cli.status", "status", "Show what a running feedmill up is doing.", LOOK),
    "tail": Lazy("feedmill.cli.tail", "tail", "Print events as they come.", LOOK),
    "query": Lazy("feedmill.cli.query", "query", "Ask the stored data in SQL (read only).", LOOK),
    "balances": Lazy("feedmill.cli.account_tables", "balances", "Show what accounts hold.", LOOK),
    "orders": Lazy("feedmill.cli.account_tables", "orders", "Show orders of accounts, open or all.", LOOK),
    "fills": Lazy("feedmill.cli.account_tables", "fills", "Show executions of orders.", LOOK),
    "psql": Lazy("feedmill.cli.query", "psql", "Open psql on the stored data.", LOOK),
    "doctor": Lazy("feedmill.cli.doctor", "doctor", "Check this machine, with a remedy for what is wrong.", OPERATE),
    "run": Lazy("feedmill.cli.run", "app", "Run one service process (feedmill up does it for you).", OPERATE),
    "migrate": Lazy("feedmill.cli.migrate", "command", "Bring a database's schema up to date.", OPERATE),
    "verify": Lazy("feedmill.cli.verify", "verify", "Compare a database with a simulator's ledger.", OPERATE),
    "dlq": Lazy("feedmill.cli.dlq", "app", "List, show, drive again or drop dead letters.", OPERATE),
    "maintain": Lazy("feedmill.cli.maintain", "app", "Run maintenance now, see what it found.", OPERATE),
    "accounts": Lazy("feedmill.cli.accounts", "app", "Keep accounts at exchanges and their secrets.", OPERATE),
    "notify": Lazy("feedmill.cli.notify", "app", "Try notifications, look at what was sent and what waits.", OPERATE),
    "import": Lazy("feedmill.cli.imports", "app", "Move data of other programs in: sqlite, pickle.", OPERATE),
    "backup": Lazy("feedmill.cli.backup", "app", "Back the database up, prove it, restore it.", OPERATE),
    "docs": Lazy(
        "feedmill.cli.docs",
        "docs",
        "Generate the reference and the CRDs.",
        OPERATE,
        hidden=True,
    ),
    "version": Lazy("feedmill.cli.common", "version", "Print the version.", OPERATE),
}


class LazyGroup(TyperGroup):
    """Lists commands from :data:`COMMANDS`; imports one when it is about to run (or to show its help)."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # Stand-ins until one is chosen: enough for the list, for completion and for "did you mean".
        self.commands = {
            name: TyperCommand(name, help=lazy.summary, hidden=lazy.hidden) for name, lazy in COMMANDS.items()
        }

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for panel in (RUN, LOOK, OPERATE):
            with formatter.section(panel):
                formatter.write_dl(
                    [(name, lazy.summary) for name, lazy in COMMANDS.items() if lazy.panel == panel and not lazy.hidden]
                )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if command is not None and name is not None else command, rest


def load(name: str) -> Any:
    """Import the command ``name`` (a key of :data:`COMMANDS`)."""
    lazy = COMMANDS[name]
    try:
        found = getattr(importlib.import_module(lazy.module), lazy.attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("feedmill"):
            raise
        typer.echo(f"feedmill {name} needs the package {error.name}: pip install 'feedmill[local]'", err=True)
        raise typer.Exit(2) from error
    if isinstance(found, typer.Typer):
        command = get_command(found)
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name, context_settings={"help_option_names": ["-h", "--help"]})(found)
        command = get_command(single)
    command.name = name
    return command


app = typer.Typer(
    cls=LazyGroup,
    name="feedmill",
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See :data:`HELP`."""


_root.__doc__ = HELP


def main() -> None:
    """Entry point of the ``feedmill`` program."""
    cast(Any, app)(prog_name="feedmill")


if __name__ == "__main__":
    main()

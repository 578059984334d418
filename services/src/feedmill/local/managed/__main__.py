"""Command line of a managed server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feedmill.local.embedded import EmbeddedError, files
from feedmill.local.managed.passwords import GRACE, Passwords
from feedmill.local.managed.postgres import ManagedPostgres
from feedmill.local.managed.redis import ManagedRedis
from feedmill.local.managed.supervise import FAILED, Server, stop_on_signals, supervise
from feedmill.shared import log

app = typer.Typer(
    help="Runs one server in the foreground. Exit codes: 0 = stopped in order, 1 = ended or could not start, "
    "2 = will not start so.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Data = Annotated[Path, typer.Option("--data", help="Folder of its data: a volume.")]
PasswordFile = Annotated[
    Path, typer.Option("--password-file", help="File with its password; a change is followed within a second.")
]
StartTimeout = Annotated[
    float, typer.Option("--start-timeout", min=1.0, help="Seconds in which it must answer, recovery included.")
]


@app.command("redis")
def _redis(
    data: Data,
    password_file: PasswordFile,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 6379,
    maxmemory: Annotated[int, typer.Option(min=0, help="Bytes; 0 = no limit. It never evicts.")] = 0,
    password_grace: Annotated[
        float, typer.Option(min=0.0, help="Seconds for which the password before a change stays good.")
    ] = GRACE,
    start_timeout: StartTimeout = 280.0,
) -> None:
    """Redis (Valkey), append-only file synced every second, on all addresses."""
    server = ManagedRedis(data.absolute(), port=port, maxmemory=maxmemory or None, start_timeout=start_timeout)
    _run(server, password_file, data, password_grace)


@app.command("postgres")
def _postgres(
    data: Data,
    password_file: PasswordFile,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5432,
    start_timeout: StartTimeout = 280.0,
) -> None:
    """PostgreSQL, role and database `feedmill`, on all addresses with scram-sha-256."""
    server = ManagedPostgres(data.absolute(), port=port, start_timeout=start_timeout)
    try:
        # A role of PostgreSQL has one password.
        _run(server, password_file, data, 0.0)
    finally:
        server.clean()


def _run(server: Server, password_file: Path, data: Path, grace: float) -> None:
    finish_log = log.configure(f"managed-{server.what.lower()}")
    stop = stop_on_signals()
    try:
        files.private_folder(data)
    except EmbeddedError as error:
        log.get_logger().error("managed.failed", server=server.what, error=str(error))
        finish_log()
        raise typer.Exit(FAILED) from None
    code = supervise(server, Passwords(password_file, data.absolute(), grace=grace), stop)
    finish_log()
    raise typer.Exit(code)


if __name__ == "__main__":
    app()

"""Command line of the operator: ``python -m feedmill_operator run``, ``feedmill-operator run``."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from feedmill import __version__
from feedmill_operator.config import DEFAULT_LEASE, DEFAULT_NAMESPACE, BadOption, LeaseOptions, Options, seconds
from feedmill_operator.serve import BAD_CONFIG, run
from feedmill_operator.wiring import wire

app = typer.Typer(
    name="feedmill-operator",
    help="Reconciles FeedPipelines and ExchangeFeeds into receivers, distributors, processors and what they need.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_LEVELS = ("debug", "info", "warning", "error")
_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _env(name: str, *more: str) -> list[str]:
    return [f"FEEDMILL_OPERATOR_{name}", *more]


@app.callback()
def _root() -> None:
    pass


@app.command()
def version() -> None:
    """Print the operator's version."""
    typer.echo(__version__)


@app.command("run")
def _run(
    operand_image: Annotated[
        str, typer.Option(envvar=_env("OPERAND_IMAGE"), help="Image of the services, for pipelines that name none.")
    ],
    namespace: Annotated[
        list[str] | None,
        typer.Option(envvar=_env("NAMESPACE"), help="Watch only this namespace; repeatable. Without it: all."),
    ] = None,
    operator_namespace: Annotated[
        str | None,
        typer.Option(
            envvar=_env("OPERATOR_NAMESPACE", "POD_NAMESPACE"),
            help="Where the operator runs and keeps its Lease. Default: its pod's, else feedmill-system.",
        ),
    ] = None,
    leader_elect: Annotated[
        bool,
        typer.Option(envvar=_env("LEADER_ELECT"), help="Work only while holding the Lease, so that several may run."),
    ] = True,
    lease_name: Annotated[
        str, typer.Option(envvar=_env("LEASE_NAME"), help="Different for each installation in one namespace.")
    ] = DEFAULT_LEASE,
    lease_duration: Annotated[
        str, typer.Option(envvar=_env("LEASE_DURATION"), help="A Lease not renewed for so long may be taken.")
    ] = "15s",
    lease_renew_deadline: Annotated[
        str, typer.Option(envvar=_env("LEASE_RENEW_DEADLINE"), help="A leader that cannot renew for so long ends.")
    ] = "10s",
    lease_retry: Annotated[
        str, typer.Option(envvar=_env("LEASE_RETRY"), help="Between two tries to take or renew it.")
    ] = "2s",
    workers: Annotated[int, typer.Option(envvar=_env("WORKERS"), help="Objects reconciled at a time.")] = 8,
    resync: Annotated[
        str, typer.Option(envvar=_env("RESYNC"), help="Look at everything again so often, give or take a tenth.")
    ] = "120s",
    health_host: Annotated[
        str, typer.Option(envvar=_env("HEALTH_HOST"), help="Address of /healthz, /readyz, /health and /metrics.")
    ] = "0.0.0.0",  # noqa: S104 - the kubelet asks by the pod's address
    health_port: Annotated[int, typer.Option(envvar=_env("HEALTH_PORT"), help="Their port.")] = 8080,
    deaf_after: Annotated[
        str, typer.Option(envvar=_env("DEAF_AFTER"), help="/healthz fails when no watch heard anything for so long.")
    ] = "5m",
    log_level: Annotated[str, typer.Option(envvar=_env("LOG_LEVEL"), help=f"One of {', '.join(_LEVELS)}.")] = "info",
    kubeconfig: Annotated[
        Path | None,
        typer.Option(envvar=_env("KUBECONFIG"), help="Default: the pod's service account, else $KUBECONFIG."),
    ] = None,
    otlp_endpoint: Annotated[
        str,
        typer.Option(
            envvar=_env("OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
            help="URL of an OTLP collector (HTTP) for a span per reconcile.",
        ),
    ] = "",
) -> None:
    """Run until stopped. Exit codes: 0 = stopped in order, 1 = leadership lost or failed, 2 = cannot start so."""
    try:
        if log_level not in _LEVELS:
            raise BadOption(f"--log-level {log_level!r}: give one of {', '.join(_LEVELS)}")
        options = Options(
            operand_image=operand_image,
            operator_namespace=operator_namespace or _own_namespace(),
            namespaces=tuple(dict.fromkeys(namespace or ())),
            identity=_identity(),
            workers=workers,
            resync=seconds("--resync", resync),
            health_host=health_host,
            health_port=health_port,
            log_level=log_level,
            kubeconfig=kubeconfig,
            lease=LeaseOptions(
                enabled=leader_elect,
                name=lease_name,
                duration=seconds("--lease-duration", lease_duration),
                renew_deadline=seconds("--lease-renew-deadline", lease_renew_deadline),
                retry=seconds("--lease-retry", lease_retry),
            ),
            deaf_after=seconds("--deaf-after", deaf_after),
            otlp_endpoint=otlp_endpoint,
        )
    except BadOption as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_CONFIG) from None
    raise typer.Exit(run(options, wire))


def _identity() -> str:
    """A pod's name is its own; elsewhere several processes may run on one machine."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}_{os.getpid()}"


def _own_namespace() -> str:
    try:
        return _ACCOUNT_NAMESPACE.read_text().strip() or DEFAULT_NAMESPACE
    except OSError:
        return DEFAULT_NAMESPACE


def main() -> None:
    app()

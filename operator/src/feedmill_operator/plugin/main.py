"""``kubectl feedmill``: the commands. Their code and the client library are imported only when one runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from feedmill import __version__

if TYPE_CHECKING:
    from feedmill_operator.plugin.cluster import Cluster

HELP = """Look at Feedmill's feeds, pipelines and accounts in a cluster, and pause, restart or reload them.

\b
  kubectl feedmill status              what is Ready, what is not, and why
  kubectl feedmill status btc          one feed, pipeline or account: conditions and pods
  kubectl feedmill logs btc -f         logs of all its processes, readable
  kubectl feedmill lag                 how far behind each shard is, now
  kubectl feedmill gaps --since 1d     what is or was missing
  kubectl feedmill reload btc          take a changed manifest now, and see that every pod does

NAME is a feed or a pipeline; where both have that name, write feed/NAME (xf/NAME) or pipeline/NAME (fpl/NAME). status
takes accounts too (account/NAME, xa/NAME).
Exit codes: 0 all is well, 1 something is not or could not be done, 2 a name or an option is wrong.
"""

app = typer.Typer(
    name="kubectl feedmill",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", metavar="NAMESPACE", help="Namespace to look in.", show_default="that of the context"
    ),
]
Context = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="Context of the kubeconfig.", show_default="the current one"),
]
Kubeconfig = Annotated[
    str | None,
    typer.Option("--kubeconfig", metavar="FILE", help="The kubeconfig.", show_default="KUBECONFIG or ~/.kube/config"),
]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Look in all namespaces.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(help="Feeds or pipelines. None = all.", metavar="NAME", show_default=False),
]
Shown = Annotated[
    list[str] | None,
    typer.Argument(help="Feeds, pipelines or accounts. None = all.", metavar="NAME", show_default=False),
]
Chosen = Annotated[list[str] | None, typer.Argument(help="Feeds or pipelines.", metavar="NAME", show_default=False)]
Every = Annotated[bool, typer.Option("--all", help="All feeds and pipelines of the namespace.")]
Timeout = Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long to wait.")]
Output = Annotated[str, typer.Option("--output", "-o", metavar="FORMAT", help="table, or json for programs.")]


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster and which part of it."""

    namespace: str | None
    context: str | None
    kubeconfig: str | None
    everywhere: bool = False


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    namespace: Namespace = None,
    context_name: Context = None,
    kubeconfig: Kubeconfig = None,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See :data:`HELP`."""
    context.obj = Where(namespace, context_name, kubeconfig)


_root.__doc__ = HELP


@app.command()
def status(
    context: typer.Context,
    wanted: Shown = None,
    everywhere: Everywhere = False,
    output: Output = "table",
    namespace: Namespace = None,
    context_name: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what is Ready, what is not, and why.

    With a NAME also its conditions and pods. Exit code 0: all shown are Ready (or suspended by you), 1: not all.

    \b
    kubectl feedmill status
    kubectl feedmill status -A
    kubectl feedmill status btc -n trading
    kubectl feedmill status -o json | jq '.[] | select(.ready != "True") | .name'
    """

    def work(cluster: Cluster, place: str | None) -> int:
        from feedmill_operator.plugin.status import run

        return run(cluster, place, wanted or [], as_json=_is_json(output))

    _run(_where(context, namespace, context_name, kubeconfig, everywhere, wanted), work)


@app.command()
def logs(
    context: typer.Context,
    wanted: Annotated[str, typer.Argument(help="A feed or a pipeline.", metavar="NAME")],
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="receiver, distributor; of a pipeline processor, accounts, migration, maintenance, redis, postgres.",
            show_default="all",
        ),
    ] = None,
    shard: Annotated[
        int | None, typer.Option("--shard", min=0, metavar="NUMBER", help="Only this shard.", show_default="all")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come, also of new pods.")] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="DURATION", help="Only newer lines: 10m, 1h.", show_default="all there is"),
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option("--tail", min=0, metavar="LINES", help="Last lines of each pod.", show_default="all there is"),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            "--level", metavar="LEVEL", help="Least weight: debug, info, warning, error.", show_default="all there is"
        ),
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the containers before their last restart.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Lines as the processes wrote them (JSON), for jq.")] = False,
    namespace: Namespace = None,
    context_name: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the logs of all its processes, readable.

    In order of time, each line with its pod.

    \b
    kubectl feedmill logs btc
    kubectl feedmill logs btc --role receiver --shard 0 -f
    kubectl feedmill logs pipeline/main --since 10m --level warning
    kubectl feedmill logs btc --previous --role distributor
    kubectl feedmill logs btc --raw | jq 'select(.level == "error")'
    """

    def work(cluster: Cluster, place: str | None) -> int:
        from feedmill_operator.plugin import text
        from feedmill_operator.plugin.errors import WRONG, PluginError
        from feedmill_operator.plugin.logline import LEVELS
        from feedmill_operator.plugin.logs import Options, check_role, run

        if level is not None and level.lower() not in LEVELS:
            raise PluginError(f"--level {level}: write one of {', '.join(LEVELS)}", WRONG)
        options = Options(
            role=check_role(role),
            shard=shard,
            follow=follow,
            raw=raw,
            previous=previous,
            since=text.duration(since, "--since") if since else None,
            tail=tail,
            level=level.lower() if level else None,
        )
        return run(cluster, _one(place), wanted, options)

    _run(_where(context, namespace, context_name, kubeconfig), work, follow=follow)


@app.command()
def lag(
    context: typer.Context,
    wanted: Names = None,
    everywhere: Everywhere = False,
    output: Output = "table",
    namespace: Namespace = None,
    context_name: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show how far behind each shard is, now.

    Every process is asked.

    RECEIVER BACKLOG is captured and not yet in Redis, DISTRIBUTOR LAG the age of what is not yet dispatched, PROCESSOR
    LAG of what is not yet stored; P50 and P99 run from the exchange's time stamp to the commit in PostgreSQL, for the
    exchange market as a whole, over the last one to two minutes. ? = nobody could say. Exit code 1: a process gave no
    answer.

    \b
    kubectl feedmill lag
    kubectl feedmill lag btc
    kubectl feedmill lag main -o json | jq '.shards[] | {feed, shard, processor_seconds}'
    """

    def work(cluster: Cluster, place: str | None) -> int:
        from feedmill_operator.plugin.lag import run

        return run(cluster, place, wanted or [], as_json=_is_json(output))

    _run(_where(context, namespace, context_name, kubeconfig, everywhere, wanted), work)


@app.command()
def gaps(
    context: typer.Context,
    wanted: Names = None,
    feed: Annotated[
        list[str] | None,
        typer.Option("--feed", metavar="NAME", help="Only of this feed (repeat for more).", show_default="all"),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="DURATION", help="Closed gaps found within this time; open ones always.")
    ] = "1h",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000, metavar="NUMBER", help="Most of a pipeline.")
    ] = 100,
    everywhere: Everywhere = False,
    output: Output = "table",
    namespace: Namespace = None,
    context_name: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what is or was missing.

    Open gaps, and those found within --since. The rows come from the pipeline's PostgreSQL, read by a processor's pod
    (right: pods/exec).

    \b
    kubectl feedmill gaps
    kubectl feedmill gaps --since 1d --feed btc
    kubectl feedmill gaps main -o json | jq 'map(select(.state == "open")) | length'
    """
    names = [*(wanted or []), *(f"feed/{name.removeprefix('feed/')}" for name in feed or [])]

    def work(cluster: Cluster, place: str | None) -> int:
        from feedmill_operator.plugin import text
        from feedmill_operator.plugin.gaps import run

        return run(
            cluster,
            place,
            names,
            since=text.duration(since, "--since"),
            limit=limit,
            as_json=_is_json(output),
        )

    _run(_where(context, namespace, context_name, kubeconfig, everywhere, names), work)


@app.command()
def pause(
    context: typer.Context,
    wanted: Chosen = None,
    every: Every = False,
    namespace: Namespace = None,
    context_name: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Have the operator leave it alone.

    It observes and reports, and changes nothing. The processes go on. For a look at, or an edit of, what the operator
    made without it being undone. To stop the processes set spec.suspend instead.

    \b
    kubectl feedmill pause btc
    kubectl feedmill pause --all -n trading
    """

    def work(cluster: Cluster, place: str | None) -> int:
        from feedmill_operator.plugin.change import chosen
        from feedmill_operator.plugin.change import pause as do

        return do(cluster, chosen(cluster, _one(place), wanted or [], every=every))

    _run(_where(context, namespace, context_name, kubeconfig), work)


@app.command()
def resume(
    context: typer.Context,
    wanted: Chosen = None,
    every: Every = False,
    namespace: Namespace = None,
    context_name: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Undo pause.

    The operator works again, and undoes what was edited by hand meanwhile.

    \b
    kubectl feedmill resume btc
    kubectl feedmill resume --all
    """

    def work(cluster: Cluster, place: str | None) -> int:
        from feedmill_operator.plugin.change import chosen
        from feedmill_operator.plugin.change import resume as do

        return do(cluster, chosen(cluster, _one(place), wanted or [], every=every))

    _run(_where(context, namespace, context_name, kubeconfig), work)


@app.command()
def restart(
    context: typer.Context,
    wanted: Chosen = None,
    every: Every = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until all pods are new and ready.")] = True,
    timeout: Timeout = "5m",
    namespace: Namespace = None,
    context_name: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Replace its pods once, new before old.

    Nothing that was captured is lost. A pipeline's are its processors and account receivers; name its feeds too to
    restart those. A changed manifest or Secret needs no restart: it is taken up by running pods (see reload).

    \b
    kubectl feedmill restart btc
    kubectl feedmill restart pipeline/main feed/btc --timeout 10m
    kubectl feedmill restart --all --no-wait
    """

    def work(cluster: Cluster, place: str | None) -> int:
        from feedmill_operator.plugin import text
        from feedmill_operator.plugin.change import chosen
        from feedmill_operator.plugin.change import restart as do

        limit = text.duration(timeout, "--timeout")
        return do(cluster, chosen(cluster, _one(place), wanted or [], every=every), wait=wait, timeout=limit)

    _run(_where(context, namespace, context_name, kubeconfig), work)


@app.command()
def reload(
    context: typer.Context,
    wanted: Chosen = None,
    every: Every = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until all pods say that they use it.")] = True,
    timeout: Timeout = "2m",
    namespace: Namespace = None,
    context_name: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Have its pods take a changed manifest now.

    Waits until each says that it works with it. The operator does the same after each change; this is for seeing it
    happen, and for a pod that has not followed. A configuration that a process refuses is named with its reason.

    \b
    kubectl apply -f btc.yaml && kubectl feedmill reload btc
    kubectl feedmill reload --all --timeout 5m
    """

    def work(cluster: Cluster, place: str | None) -> int:
        from feedmill_operator.plugin import text
        from feedmill_operator.plugin.change import chosen
        from feedmill_operator.plugin.reload import run

        limit = text.duration(timeout, "--timeout")
        return run(cluster, chosen(cluster, _one(place), wanted or [], every=every), wait=wait, timeout=limit)

    _run(_where(context, namespace, context_name, kubeconfig), work)


def _where(
    context: typer.Context,
    namespace: str | None,
    context_name: str | None,
    kubeconfig: str | None,
    everywhere: bool = False,
    wanted: list[str] | None = None,
) -> Where:
    """What stands after the command goes before what stands before it."""
    before: Where = context.obj
    if everywhere and wanted:
        _refuse("-A looks at everything: leave the names out, or choose a namespace with -n instead")
    if everywhere and namespace:
        _refuse("give -n or -A, not both")
    return Where(
        namespace or before.namespace, context_name or before.context, kubeconfig or before.kubeconfig, everywhere
    )


def _one(place: str | None) -> str:
    assert place is not None  # Only commands without -A ask.
    return place


def _is_json(output: str) -> bool:
    from feedmill_operator.plugin.errors import WRONG, PluginError

    if output not in ("table", "json"):
        raise PluginError(f"-o {output}: write table or json", WRONG)
    return output == "json"


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)


def _run(where: Where, work: Callable[[Cluster, str | None], int], *, follow: bool = False) -> NoReturn:
    """Connect, do it, and turn what goes wrong into one line and an exit code."""
    from feedmill_operator.kube.api import ApiError
    from feedmill_operator.plugin.cluster import connect
    from feedmill_operator.plugin.errors import PluginError, explain

    server = "of the kubeconfig"
    try:
        cluster = connect(where.kubeconfig, where.context)
        server = cluster.server
        code = work(cluster, None if where.everywhere else where.namespace or cluster.namespace)
    except PluginError as error:
        _end(str(error), error.code)
    except ApiError as error:
        told = explain(error, server)
        _end(str(told), told.code)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("feedmill"):
            raise
        _end(f"kubectl feedmill needs the package {error.name}: pip install 'feedmill[operator]'", 2)
    except KeyboardInterrupt:
        # The way to end following.
        raise typer.Exit(0 if follow else 130) from None
    except BrokenPipeError:
        # The reader (head, less) went away: nothing more to say, also not when the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    raise typer.Exit(code)


def _end(message: str, code: int) -> NoReturn:
    from feedmill.shared.log import redact

    typer.echo(redact(message), err=True)
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the program ``kubectl-feedmill``."""
    cast(Any, app)(prog_name="kubectl feedmill")


if __name__ == "__main__":
    main()

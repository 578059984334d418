"""``feedmill status``: what the manager that runs on a data folder is doing."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Annotated, Any

import typer

from feedmill.cli.common import DATA_DIR, DataDir, api_port, fail, folder, human_bytes, human_seconds, told
from feedmill.local import account_figures
from feedmill.local.embedded.files import DirLock

TIMEOUT = 5.0


def ask(port: int, path: str) -> Any:
    """JSON of the manager's API; raises OSError when it does not answer."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT) as answer:
        return json.load(answer)


@told
def status(
    data_dir: DataDir = DATA_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="The whole document, for programs.")] = False,
) -> None:
    """Show what a running feedmill up is doing: services, servers, and what each waits for.

    Exit code: 0 all ready, 1 not all ready or no answer yet, 3 nothing runs on this folder.

    \b
    feedmill status
    feedmill status --json | jq .totals
    """
    port = api_port(data_dir)
    document: Any = None
    if port is not None:
        try:
            document = ask(port, "/status")
        except (OSError, ValueError, urllib.error.URLError):
            document = None
    if document is None and DirLock.is_held(folder(data_dir)):
        fail(f"{data_dir} is at work, and does not answer: it is starting or stopping: ask again in a moment", 1)
    if document is None:
        fail(f"nothing runs on {data_dir}: start it with feedmill up -f FILE, or name another with --data-dir", 3)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _show(document)
    raise typer.Exit(0 if document["ready"] else 1)


def _show(document: Any) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from feedmill.local import account_view

    console = Console(highlight=False)
    totals = document["totals"]
    state = "ready" if document["ready"] else document["phase"]
    console.print(
        f"[bold]{state}[/] for {human_seconds(document['uptime_seconds'])}: {totals['ready']} of "
        f"{totals['services']} services ready, {human_bytes(totals['rss_bytes'])}, {totals['restarts']} restarts"
    )
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("service", no_wrap=True, overflow="ellipsis")
    # Least widths: on a narrow terminal a long name is cut, not a number.
    table.add_column("state", no_wrap=True, min_width=8)
    for column, least in (("up", 11), ("restarts", 8), ("memory", 7), ("cpu", 5)):
        table.add_column(column, justify="right", no_wrap=True, min_width=least)
    below: list[str] = []
    for item in document["services"]:
        shown = "ready" if item["ready"] else ("crash loop" if item["crash_loop"] else item["state"])
        up = human_seconds(item["uptime_seconds"]) if item["uptime_seconds"] is not None else ""
        cpu = "?" if item["cpu_percent"] is None else f"{item['cpu_percent']:.0f} %"
        table.add_row(item["name"], shown, up, str(item["restarts"]), human_bytes(item["rss_bytes"]), cpu)
        if why := _why(item):
            below.append(f"{item['name']}: {why}")
    for server in document["servers"]:
        own = server["kind"] == "embedded"
        restarts, memory = (str(server["restarts"]), human_bytes(server["rss_bytes"])) if own else ("", "")
        table.add_row(server["name"], server["state"] if own else "external", "", restarts, memory, "")
        if server["last_error"]:
            below.append(f"{server['name']}: {server['last_error']}")
    console.print(table, markup=False)
    members = [item["health"] for item in document["services"] if item["role"] == "accounts"]
    if members:
        found = account_figures.of(members, None)
        if (states := account_view.states_table(found)) is not None:
            console.print(states, markup=False)
        console.print(account_view.summary(found), markup=False)
        below += [f"account {name}: {why}" for name, why in found.problems.items()]
    for line in below:
        console.print(line, markup=False, soft_wrap=True)


def _why(item: Any) -> str:
    waits = "; ".join(f"{name}: {why}" for name, why in item["waiting_for"].items())
    if waits:
        return waits
    if item["state"] in ("backoff", "failed") or item["crash_loop"]:
        again = item["next_start_seconds"]
        return f"{item['last_error'] or item['last_exit']}{f' (again in {again:g} s)' if again is not None else ''}"
    return ""

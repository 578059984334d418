"""What goes wrong names the cause and the remedy, and ends with the right exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from feedmill_operator.plugin.main import app


def test_nobody_listens(kubeconfig: Path, feedmill: Any) -> None:
    done = feedmill("status", "--context", "there")
    assert done.code == 1
    assert "the API server http://127.0.0.1:9 does not answer" in done.err
    assert "refused" in done.err
    assert "kubectl config get-contexts" in done.err
    assert "object at 0x" not in done.err
    assert len(done.err.splitlines()) == 1


def test_a_context_that_is_not_there(feedmill: Any) -> None:
    done = feedmill("--context", "her", "status")
    assert done.code == 2
    assert "--context her: the kubeconfig has none of that name: did you mean here?" in done.err


def test_no_kubeconfig(feedmill: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = feedmill("status", "--kubeconfig", "/nowhere/config")
    assert (done.code, done.err) == (2, "--kubeconfig: there is no file /nowhere/config: check the path\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    assert feedmill("status").err.startswith("KUBECONFIG: there is no file")
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = feedmill("status")
    assert done.code == 2
    assert "there is no kubeconfig (~/.kube/config): give --kubeconfig FILE or set KUBECONFIG" in done.err


def test_a_kubeconfig_that_cannot_be_read(feedmill: Any, kubeconfig: Path) -> None:
    kubeconfig.write_text("apiVersion: [")
    done = feedmill("status")
    assert done.code == 2
    assert f"the kubeconfig {kubeconfig} cannot be used" in done.err
    kubeconfig.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "contexts": [], "clusters": []}))
    assert feedmill("status").code == 2


def test_several_kubeconfigs_are_one(api: Any, kubeconfig: Path, feedmill: Any, kit: Any, monkeypatch: Any) -> None:
    api.add("exchangefeeds", kit.feed("btc", kit.READY, **kit.GOOD_FEED))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(["/nowhere/first", str(kubeconfig)]))
    assert feedmill("status", "btc").code == 0


def test_forbidden_names_the_right(api: Any, feedmill: Any, kit: Any) -> None:
    api.forbidden.add("GET */exchangefeeds")
    done = feedmill("status")
    assert done.code == 1
    assert 'User "me" cannot do this: GET /apis/feedmill.dev/v1alpha1/namespaces/trading/exchangefeeds' in done.err
    assert "docs/kubectl-plugin.md lists the rights" in done.err
    done = feedmill("status", "bct")
    assert (done.code, done.err) == (
        2, "namespace trading has no feed, pipeline or account named bct (you may not list what there is)\n",
    )  # fmt: skip


def test_a_wrong_name_is_guessed(api: Any, feedmill: Any, kit: Any) -> None:
    for name in ("btc-spot", "eth-spot"):
        api.add("exchangefeeds", kit.feed(name, kit.READY))
    for command in ("status", "logs", "lag", "pause", "restart", "reload", "gaps"):
        done = feedmill(command, "btc-spt")
        assert done.code == 2, command
        what = "feed, pipeline or account" if command == "status" else "feed or pipeline"
        assert done.err.startswith(f"namespace trading has no {what} named btc-spt: did you mean btc-spot?")
    assert "there is btc-spot, eth-spot" in feedmill("status", "xyz").err
    assert "nor any other: choose a namespace with -n" in feedmill("status", "x", "-n", "empty").err


def test_a_name_of_both_kinds_must_be_told_apart(api: Any, feedmill: Any, kit: Any) -> None:
    api.add("exchangefeeds", kit.feed("main", kit.READY, **kit.GOOD_FEED))
    api.add("feedpipelines", kit.pipeline("main", kit.READY, **kit.GOOD_PIPELINE))
    done = feedmill("status", "main")
    assert done.code == 2
    assert "write feed/main or pipeline/main" in done.err
    assert feedmill("status", "xf/main", "fpl/main").code == 0
    assert feedmill("status", "pod/main").err.startswith("pod/main: 'pod' is not a kind: write NAME, feed/NAME")


def test_feedmill_is_not_installed(api: Any, feedmill: Any) -> None:
    body = '{"kind": "Status", "reason": "NotFound", "message": "the server could not find the requested resource"}'
    api.broken["GET */feedmill.dev/*"] = (404, body)
    done = feedmill("status")
    assert done.code == 1
    assert "does not know feedmill.dev/v1alpha1: install Feedmill there first (docs/install.md)" in done.err
    assert feedmill("pause", "btc").err == done.err


def test_other_refusals(api: Any, feedmill: Any) -> None:
    api.broken["GET */exchangefeeds"] = (401, '{"kind": "Status", "message": "Unauthorized"}')
    assert "does not accept your credentials (Unauthorized): log in again" in feedmill("status").err
    api.broken["GET */exchangefeeds"] = (200, "<html>hello</html>")
    assert "does not speak like a Kubernetes API server" in feedmill("status").err
    said = {"kind": "Status", "message": 'error: Post "https://n:1/exec/x?command=a&b=c": tls: bad'}
    api.broken["GET */exchangefeeds"] = (500, json.dumps(said))
    assert feedmill("status").err.endswith('refused: 500 error: Post "https://n:1/exec/x": tls: bad\n')
    api.broken["GET */exchangefeeds"] = (500, "etcd is gone")
    assert "refused: 500 etcd is gone" in feedmill("status").err


def test_options_that_do_not_fit(feedmill: Any) -> None:
    assert feedmill("status", "-A", "btc").code == 2
    assert feedmill("status", "-A", "-n", "x").err == "give -n or -A, not both\n"
    assert feedmill("pause").err.startswith("name a feed or a pipeline (NAME, feed/NAME, pipeline/NAME), or give --all")
    assert feedmill("pause", "btc", "--all").code == 2
    assert feedmill("gaps", "--since", "soon").err == "--since 'soon' is not a duration: write 30s, 10m, 1h or 2d\n"


def test_the_token_is_never_shown(api: Any, feedmill: Any) -> None:
    api.broken["GET */exchangefeeds"] = (500, '{"kind": "Status", "message": "bad token=sesame-open-wide"}')
    done = feedmill("status")
    assert "sesame" not in done.err + done.out


@pytest.mark.parametrize("name", sorted(get_command(app).commands))  # type: ignore[attr-defined]
def test_every_command_explains_itself(name: str, feedmill: Any) -> None:
    text = feedmill(name, "--help").out
    assert f"kubectl feedmill {name}" in text.split("Options:")[0].split("\n", 1)[1], "an example"
    for bare in ("<list", "<path>", "<str>", "<int", "<float"):
        assert bare not in text[text.index("Options:") :], "a metavar says what to write, a type does not"
    summary = next(line for line in feedmill("--help").out.splitlines() if line.split()[:1] == [name])
    assert not summary.endswith("..."), "the list of commands shows whole sentences"


def test_help_imports_no_client() -> None:
    code = (
        "import sys; from feedmill_operator.plugin.main import app; from typer.testing import CliRunner;"
        "assert CliRunner().invoke(app, ['status', '--help']).exit_code == 0;"
        "print(sorted({'kubernetes', 'kopf', 'rich.table', 'structlog', 'urllib3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout.strip() == "[]"

"""Manifests read and checked for a service process, with the rules evaluated in a process of its own.

The evaluator of the rules (CEL) is needed once, at the start and when a manifest changes, and would then stay: 4 MiB of
each service (measured). So a child reads the same texts, checks all of them and gives the problems; what holds is then
only parsed here.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable

import msgspec

from feedmill.resources.collection import Resources
from feedmill.resources.load import Texts, load_read
from feedmill.resources.problems import Problem, ResourceError

TIMEOUT = 60.0
"""Seconds the child may take: it takes a third of one, and more on a machine that is very busy."""


class CheckFailed(RuntimeError):
    """The manifests could not be checked, which says nothing about them."""


def load_checked(read: Texts, *, warm: str = "") -> Resources:
    """As ``load_read(read, local=True)``. Blocks for a third of a second: in a service, call it in a thread.

    ``warm``: a module to import meanwhile. Raises ResourceError with every problem of every file, or CheckFailed.
    """
    answer = _ask_child(read, (lambda: importlib.import_module(warm)) if warm else (lambda: None))
    problems = msgspec.json.decode(answer, type=list[Problem])
    if problems:
        raise ResourceError(problems)
    return load_read(read, local=True, rules=False)


def _ask_child(read: Texts, meanwhile: Callable[[], object]) -> bytes:
    # -P: what lies in the working directory is not imported. The texts go by a pipe: arguments are everybody's to read.
    command = (sys.executable, "-P", "-m", __name__)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:  # noqa: S603 - our own
        try:
            assert child.stdin is not None
            child.stdin.write(msgspec.json.encode(read))
            child.stdin.flush()
            meanwhile()
            answer, said = child.communicate(timeout=TIMEOUT)
        except (BrokenPipeError, subprocess.TimeoutExpired) as error:
            child.kill()
            said = child.communicate()[1]
            raise _failed(f"{type(error).__name__}", said) from error
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        raise _failed(f"exit code {child.returncode}", said)
    return answer


def _failed(why: str, said: bytes) -> CheckFailed:
    last = said.decode(errors="replace").strip().rpartition("\n")[2][:300]
    return CheckFailed(f"the manifests could not be checked: the process for it ended with {why}. {last}".rstrip(". "))


def _child() -> None:
    read = msgspec.json.decode(sys.stdin.buffer.read(), type=Texts)
    problems: tuple[Problem, ...] = ()
    try:
        load_read(read, local=True)
    except ResourceError as error:
        problems = error.problems
    sys.stdout.buffer.write(msgspec.json.encode(problems))


if __name__ == "__main__":
    _child()

"""Memory of a process that knows secrets does not end up in a file."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """No core dump of this process, whatever happens to it, and no look into its memory for other processes of its
    user (``/proc/PID/mem``, ``environ``; root can). What it starts keeps the limit and may be looked into."""
    with contextlib.suppress(OSError, ValueError):  # Where the system has no such limit.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # The limit alone does not count where dumps go to a program (core_pattern with a |, as systemd's).
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

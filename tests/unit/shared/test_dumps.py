"""Core dumps are off in processes that know secrets."""

from __future__ import annotations

import subprocess
import sys

ASKS = """
import ctypes, resource
from feedmill.shared.dumps import forbid_dumps
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
forbid_dumps()
print(before, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_dumps_are_forbidden() -> None:
    told = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True, timeout=200)
    assert told.stdout.strip() == "1 0 (0, 0)"

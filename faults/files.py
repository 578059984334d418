"""What a folder holds while others write there."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """The files in ``folder`` and all below it whose path from there matches, sorted; none if it is not there.

    ``Path.rglob`` ends with FileNotFoundError where somebody takes a folder away meanwhile.
    """
    found = (Path(where, name) for where, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if fnmatch(path.relative_to(folder).as_posix(), pattern))

"""Looks for secrets in places that may hold none: in bytes of anything, and in every form a secret could have there."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from faults.files import files_below

CHUNK = 1 << 22
_SHORTEST = 6
"""Letters of a form: of a shorter one every file is full."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One that was planted."""

    kind: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Leak:
    """Where one was found. Its value is not told: this is printed."""

    kind: str
    where: str
    form: str


def _base64(raw: bytes) -> Iterator[bytes]:
    """What is in the base64 of any text that has ``raw`` in it, whatever stands before and behind."""
    for shift, begin in ((0, 0), (1, 2), (2, 3)):
        text = base64.b64encode(bytes(shift) + raw)[begin : (shift + len(raw)) * 8 // 6]
        yield text
        yield text.translate(bytes.maketrans(b"+/", b"-_"))


def forms(value: str) -> dict[bytes, str]:
    """How ``value`` may stand somewhere -> the name of that form."""
    # Of a PEM text each line is as good as the whole.
    whole = {line: "a line of it" for line in value.splitlines() if len(line) >= 16 and not line.startswith("-----")}
    whole |= {value.strip(): "as it is"}
    found: dict[bytes, str] = {}
    for text, name in whole.items():
        raw = text.encode()
        found.setdefault(raw, name)
        found.setdefault(quote(text, safe="").encode(), "percent-encoded")
        found.setdefault(quote(text).encode(), "percent-encoded")
        found.setdefault(quote(quote(text, safe=""), safe="").encode(), "percent-encoded twice")
        found.setdefault(json.dumps(text)[1:-1].encode(), "in JSON")
        found.setdefault(json.dumps(json.dumps(text))[3:-3].encode(), "in JSON in JSON")
        found.setdefault(repr(text)[1:-1].encode(), "in a repr")
        found.setdefault(raw.hex().encode(), "in hex")
        found.setdefault(raw.hex().upper().encode(), "in hex")
        for encoded in _base64(raw):
            found.setdefault(encoded, "in base64")
    return {form: name for form, name in found.items() if len(form) >= _SHORTEST}


class Scanner:
    """``plant`` secrets, ``look`` at places; ``leaks`` is what was found, ``looked`` how many bytes of each place."""

    def __init__(self) -> None:
        self._forms: dict[bytes, tuple[str, str]] = {}
        self.kinds: set[str] = set()
        self.leaks: list[Leak] = []
        self.looked: dict[str, int] = {}

    def plant(self, secret: Secret) -> None:
        if len(secret.value) < _SHORTEST:
            raise ValueError(f"a secret of the kind {secret.kind} is too short to be looked for")
        self.kinds.add(secret.kind)
        for form, name in forms(secret.value).items():
            self._forms.setdefault(form, (secret.kind, name))

    def look(self, where: str, data: str | bytes) -> list[Leak]:
        """What ``data`` holds of them."""
        content = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        self.looked[where] = self.looked.get(where, 0) + len(content)
        found = [Leak(kind, where, name) for form, (kind, name) in self._forms.items() if form in content]
        self.leaks += [leak for leak in found if leak not in self.leaks]
        return found

    def look_file(self, path: Path, where: str = "", most: float = math.inf) -> list[Leak]:
        """The same of a file's first ``most`` bytes, a part at a time. One that is gone meanwhile holds nothing."""
        overlap = max(map(len, self._forms), default=0)
        found: list[Leak] = []
        before = b""
        try:
            with path.open("rb") as file:
                while file.tell() < most and (part := file.read(CHUNK)):
                    found += self.look(where or str(path), before + part)
                    before = part[-overlap:]
        except FileNotFoundError:
            pass
        return found

    def look_folder(self, folder: Path, but: frozenset[Path] = frozenset(), most: float = math.inf) -> list[Leak]:
        """Every file in it, and every name; ``but``: files and folders where the secrets may be."""
        found: list[Leak] = []
        files: list[Path] = []
        # Unlike rglob this bears that a folder is taken away meanwhile.
        there = (Path(where, name) for where, folders, names in os.walk(folder) for name in (*folders, *names))
        for path in sorted(there):
            if path in but or not but.isdisjoint(path.parents):
                continue
            found += self.look("names of files", str(path.relative_to(folder)))
            if path.is_file() and not path.is_symlink():
                files.append(path)
        suspects = self._suspects(files)
        for path in files:
            where = str(path.relative_to(folder))
            if suspects is None or path in suspects:
                found += self.look_file(path, where, most)
            else:
                with contextlib.suppress(FileNotFoundError):
                    self.looked[where] = self.looked.get(where, 0) + path.stat().st_size
        return found

    def _suspects(self, files: list[Path]) -> set[Path] | None:
        """Files that grep finds any form in: it looks for thousands at once. None = there is no grep for that."""
        # What it takes for several forms is of one that has several lines; each of them is a form too.
        wanted = [form for form in self._forms if b"\n" not in form]
        if not files or not wanted:
            return set()
        command = ["grep", "-l", "-a", "-F", "-s", "-f", "-", "--", *map(str, files)]
        try:
            done = subprocess.run(  # noqa: S603 (no shell, file names behind --)
                command, input=b"\n".join(wanted), capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}
            )
        except OSError:
            return None
        return {Path(line) for line in os.fsdecode(done.stdout).splitlines()} if done.returncode in (0, 1) else None


PRIVATE = ("password", "redis.conf", "kek", "keys.json", "redis-url", "database-url")
"""Names of the files in the folder of a fault where secrets may be."""
MOST = 64 << 20
"""Bytes of a file that are looked at after a fault: Redis writes more when all is blasted."""


def of_run(folder: Path) -> list[str]:
    """What of the secrets of a fault's run is in its other files (logs, Redis's log of writes, ledger), in words."""
    allowed = {path for path in files_below(folder) if path.name in PRIVATE}
    allowed |= {
        path for pattern in ("sentinel-*", "postgres*/pgdata", "postgres*/bin") for path in folder.glob(pattern)
    }
    scanner = Scanner()
    for kind, value in _secrets(folder):
        scanner.plant(Secret(kind, value))
    scanner.look_folder(folder, frozenset(allowed), MOST)
    return [f"{leak.kind} in {leak.where} ({leak.form})" for leak in scanner.leaks]


def _secrets(folder: Path) -> Iterator[tuple[str, str]]:
    for path in folder.glob("*/password"):
        yield f"password of {path.parent.name}", path.read_text("utf-8").strip()
    for path in folder.glob("kek"):
        yield from (("KEK", line.split()[1]) for line in path.read_text("utf-8").splitlines() if line.strip())
    for path in folder.glob("keys.json"):
        for venue, content in json.loads(path.read_text("utf-8")).items():
            for key in content["accounts"]:
                fields = ("apiKey", "apiSecret", "privateKey")
                yield from ((f"{name} at {venue}", key[name]) for name in fields if name in key)

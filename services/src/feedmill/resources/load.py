"""Reads manifests from files: the only I/O of this package."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from feedmill.exchanges import registry
from feedmill.resources.account import ExchangeAccount
from feedmill.resources.checks import Venues, check_all
from feedmill.resources.collection import Key, Resources
from feedmill.resources.document import read_documents
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.parse import Loaded, parse_document
from feedmill.resources.pipeline import default_pipeline
from feedmill.resources.problems import Problem, ResourceError

__all__ = [
    "MAX_FILE_BYTES",
    "Key",
    "ResourceError",
    "Resources",
    "Texts",
    "load_files",
    "load_read",
    "load_texts",
    "read_files",
]

MAX_FILE_BYTES = 1024 * 1024
MAX_FILES = 500


@dataclass(frozen=True, slots=True)
class Texts:
    """What files held at one moment. Equal when they hold the same, wherever the symlinks lead."""

    texts: dict[str, str]
    """Name as shown in messages -> YAML."""
    problems: tuple[Problem, ...] = ()
    """Of files that could not be read."""

    @property
    def by_name(self) -> dict[str, str]:
        """File name -> text, as ``config_hash`` takes it (of two files of one name the second keeps its path)."""
        found: dict[str, str] = {}
        for shown, text in self.texts.items():
            name = Path(shown).name
            found[shown if name in found else name] = text
        return found


def installed_venues() -> Venues:
    """The adapters of this installation."""
    return Venues(registry.venue_names, registry.get_venue)


def load_files(
    paths: Iterable[str | os.PathLike[str]], *, local: bool = False, venues: Venues | None = None
) -> Resources:
    """Read and check the resources in ``paths`` (files, or folders: every .yaml and .yml in them, not below).

    Relative paths count from the working directory; symlinks are followed. ``local``: feeds and accounts without any
    pipeline in the files get a default one. Raises ResourceError that lists every problem of every file.
    """
    return load_read(read_files(paths), local=local, venues=venues)


def read_files(paths: Iterable[str | os.PathLike[str]]) -> Texts:
    """The first half of :func:`load_files`: only the reading."""
    problems: list[Problem] = []
    texts: dict[str, str] = {}
    for shown, real in _files(paths, problems):
        text = _read(shown, real, problems)
        if text is not None:
            texts[shown] = text
    return Texts(texts, tuple(problems))


def load_read(read: Texts, *, local: bool = False, venues: Venues | None = None, rules: bool = True) -> Resources:
    """The second half of :func:`load_files`: parse and check. ``rules``: evaluate the CEL rules too."""
    return _load(read.texts, list(read.problems), local=local, venues=venues or installed_venues(), rules=rules)


def load_texts(texts: dict[str, str], *, local: bool = False, venues: Venues | None = None) -> Resources:
    """As :func:`load_files`, for texts already read: name shown in messages -> YAML."""
    return _load(texts, [], local=local, venues=venues or installed_venues())


def _load(
    texts: dict[str, str], problems: list[Problem], *, local: bool, venues: Venues, rules: bool = True
) -> Resources:
    loaded: list[Loaded] = []
    resources = Resources()
    for shown, text in texts.items():
        documents, unreadable = read_documents(shown, text)
        problems.extend(unreadable)
        for document in documents:
            item, wrong = parse_document(document, rules=rules)
            problems.extend(wrong)
            if item is not None:
                loaded.append(item)
            elif not wrong:
                name = (document.data.get("metadata") or {}).get("name", "")
                resources.skipped.append(f"{shown}:{document.line(())}: {document.data['kind']} {name}".rstrip())
    whole = not problems
    problems.extend(check_all(loaded, venues, local=local) if whole else _checks_of_parts(loaded, venues, problems))
    if whole and not loaded:
        names = ", ".join(texts) or "no file"
        what = "holds no ExchangeFeed, ExchangeAccount or FeedPipeline: add one (see examples/)"
        problems.append(Problem(names, 0, "", what))
    if problems:
        raise ResourceError(problems)
    for item in loaded:
        if isinstance(item.resource, ExchangeFeed):
            resources.feeds[item.resource.key] = item.resource
        elif isinstance(item.resource, ExchangeAccount):
            resources.accounts[item.resource.key] = item.resource
        else:
            resources.pipelines[item.resource.key] = item.resource
    if local and not resources.pipelines:
        wanted = [(feed.key[0], feed.spec.pipeline_ref.name) for feed in resources.feeds.values()]
        wanted += [(account.key[0], account.spec.pipeline_ref.name) for account in resources.accounts.values()]
        for key in wanted:
            resources.pipelines.setdefault(key, default_pipeline(*key))
    return resources


def _checks_of_parts(loaded: list[Loaded], venues: Venues, known: list[Problem]) -> list[Problem]:
    """Some documents could not be read, or not wholly: a reference to one of them must not be reported as missing, and
    nothing twice."""
    reported = {(problem.file, problem.line, problem.path) for problem in known}
    return [
        problem
        for problem in check_all(loaded, venues, local=True)
        if problem.path != "spec.pipelineRef.name" and (problem.file, problem.line, problem.path) not in reported
    ]


def _files(paths: Iterable[str | os.PathLike[str]], problems: list[Problem]) -> list[tuple[str, Path]]:
    """(name to show, resolved path) of every file, each once."""
    found: dict[Path, str] = {}
    for given in paths:
        shown = os.fspath(given)
        try:
            real = Path(shown).resolve(strict=True)
            if real.is_dir():
                inside = sorted(item for item in real.iterdir() if item.suffix in (".yaml", ".yml"))
                if not inside:
                    problems.append(Problem(shown, 0, "", "the folder holds no .yaml or .yml file"))
                for item in inside:
                    found.setdefault(item.resolve(strict=True), str(Path(shown) / item.name))
            else:
                found.setdefault(real, shown)
        except OSError as error:
            problems.append(Problem(shown, 0, "", _cannot_read(error)))
        except RuntimeError:
            problems.append(Problem(shown, 0, "", "is a symlink that leads to itself"))
    if len(found) > MAX_FILES:
        problems.append(
            Problem(next(iter(found.values())), 0, "", f"and more than {MAX_FILES} other files: name fewer")
        )
        return []
    return [(shown, real) for real, shown in found.items()]


def _cannot_read(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file or folder: check the path (relative paths count from the working directory)"
    if isinstance(error, PermissionError):
        return "cannot be read: this user lacks the permission"
    return f"cannot be read: {error.strerror or error}"


def _read(shown: str, real: Path, problems: list[Problem]) -> str | None:
    try:
        if not stat.S_ISREG(real.stat().st_mode):
            problems.append(Problem(shown, 0, "", "is not a regular file"))
            return None
        with real.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        problems.append(Problem(shown, 0, "", _cannot_read(error)))
        return None
    if len(content) > MAX_FILE_BYTES:
        problems.append(Problem(shown, 0, "", f"is larger than {MAX_FILE_BYTES} bytes: no manifest is, split the file"))
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problems.append(Problem(shown, line, "", "is not UTF-8 text: save it as UTF-8"))
        return None

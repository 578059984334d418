"""YAML text -> plain documents that remember their lines. Pure; built for files nobody vouches for.

Only plain data is made (no Python objects), aliases and depth are bounded before anything is expanded, and keys that
are written twice are reported instead of the last one winning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from feedmill.resources.problems import Problem, at
from feedmill.resources.shape import Path

MAX_ALIASES = 200
MAX_DEPTH = 40
MAX_NODES = 200_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(slots=True)
class Document:
    """One YAML document: plain data, and the line of every value in it."""

    file: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    """1-based line of each key (of each item, in lists)."""
    problems: list[Problem] = field(default_factory=list)
    """Keys given twice, empty values."""

    def line(self, path: Path) -> int:
        """Line of the value at ``path``, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, message: str) -> Problem:
        """A problem of this document, with its line."""
        return Problem(self.file, self.line(path), at(path), message)


def read_documents(file: str, text: str) -> tuple[list[Document], list[Problem]]:
    """All documents of a file, and what keeps it (or the rest of it) from being read. Empty documents are left out."""
    problems: list[Problem] = []
    documents: list[Document] = []
    try:
        refused = _bounds(file, text)
        if refused is not None:
            return [], [refused]
        for node in yaml.compose_all(text, Loader=_Loader):
            builder = _Builder(file)
            document = builder.document
            document.lines[()] = node.start_mark.line + 1 if node.start_mark else 1
            document.data = builder.value(node, ())
            if document.data is not None or document.problems:
                documents.append(document)
    except _Refused as error:
        problems.append(Problem(file, error.line, "", error.text))
    except yaml.YAMLError as error:
        problems.append(_syntax(file, text, error))
    return documents, problems


class _Refused(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


def _bounds(file: str, text: str) -> Problem | None:
    """Walk the events before composing: nothing is expanded or nested beyond the bounds."""
    aliases = depth = nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        nodes += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        if aliases > MAX_ALIASES:
            return Problem(file, line, "", f"more than {MAX_ALIASES} YAML aliases (*name): write the values out")
        if depth > MAX_DEPTH:
            return Problem(file, line, "", f"nested deeper than {MAX_DEPTH} levels: no resource needs that")
        if nodes > MAX_NODES:
            return Problem(file, line, "", f"more than {MAX_NODES} values: split the file")
    return None


def _syntax(file: str, content: str, error: yaml.YAMLError) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        text = error.problem or "the YAML cannot be read"
        if "\\t" in text or "cannot start any token" in text:
            lines = content.splitlines()
            tab = mark is not None and mark.line < len(lines) and "\t" in lines[mark.line][: mark.column + 1]
            text += ": indent with spaces, not with tabs" if tab else ": put values that begin with @, ` or % in quotes"
        elif "mapping values are not allowed" in text:
            text += ": check the indentation, and put values that contain ': ' in quotes"
        elif "did not find expected" in text or "could not find expected" in text:
            text += ": check the indentation and the brackets above this line"
        return Problem(file, mark.line + 1 if mark else 0, "", f"not valid YAML: {text}")
    return Problem(file, 0, "", f"not valid YAML: {str(error).splitlines()[0]}")


class _Builder:
    """Makes plain data of a node tree, shared nodes written out, within MAX_NODES."""

    def __init__(self, file: str) -> None:
        self.document = Document(file, None)
        self._left = MAX_NODES
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self._left -= 1
        if self._left < 0:
            raise _Refused(line, f"its YAML aliases grow beyond {MAX_NODES} values: write the values out")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            raise _Refused(line, "a YAML alias (*name) contains itself: write the value out")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _item(self, node: yaml.Node, path: Path) -> Any:
        self.document.lines[path] = node.start_mark.line + 1
        return self.value(node, path)

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[tuple[str, yaml.Node, yaml.Node]] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged.extend(self._merged(value_node))
                continue
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused(line, "a key is a list or a mapping: keys are words")
            key = str(key_node.value)
            here = (*path, key)
            if key in result:
                first = self.document.lines[here]
                self.document.problems.append(
                    Problem(
                        self.document.file,
                        line,
                        at(here),
                        f"the key is given twice (first in line {first}): remove one",
                    )
                )
                continue
            self.document.lines[here] = line
            result[key] = self.value(value_node, here)
        for key, key_node, value_node in merged:
            if key not in result:
                here = (*path, key)
                self.document.lines[here] = key_node.start_mark.line + 1
                result[key] = self.value(value_node, here)
        return result

    def _merged(self, node: yaml.Node) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Keys that ``<<:`` brings in, the ones that win first. Merges inside merged mappings are not followed."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise _Refused(node.start_mark.line + 1, "<<: takes an alias of a mapping (*name)")
            for key_node, value_node in source.value:
                if key_node.tag == _MERGE or not isinstance(key_node, yaml.ScalarNode):
                    line = key_node.start_mark.line + 1
                    raise _Refused(line, "a merged mapping (<<:) must hold plain keys: write the values out")
                yield str(key_node.value), key_node, value_node

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind = node.tag.rpartition(":")[2]
        text = str(node.value)
        if kind == "null":
            if path:
                self.document.problems.append(
                    self.document.problem(
                        path, "has no value: give one, write {} for an empty mapping, or remove the line"
                    )
                )
            return None
        if kind == "bool":
            return text.lower() in ("true", "yes", "on")
        if kind == "int":
            return _integer(text)
        if kind == "float":
            return _float(text)
        return text


def _integer(text: str) -> int | str:
    """YAML 1.1 reads 12:30 as 750 and 017 as 15, which nobody means: those stay text."""
    plain = text.replace("_", "")
    try:
        return int(plain, 10) if not plain.lstrip("+-").startswith("0") or plain.lstrip("+-") == "0" else text
    except ValueError:
        return text


def _float(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text

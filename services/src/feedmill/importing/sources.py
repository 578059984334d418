"""Files of other programs as named tables of rows. Files are only read."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from feedmill.importing import ImportRefused, pickles
from feedmill.importing.mapping import Mapping

Row = tuple[Any, ...]
MAX_PICKLE_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Part:
    """A table: its columns, and its rows in an order that stays."""

    name: str
    columns: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]
    """Raises ImportRefused."""
    count: Callable[[], int]
    """Of the rows, for the progress bar. Raises ImportRefused."""


def sqlite(path: Path) -> list[Part]:
    """Tables of a sqlite file. Raises ImportRefused."""
    with _opened(path) as connection:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_' ORDER BY name"
        ).fetchall()
        return [_table(path, connection, str(name)) for (name,) in tables]


def _table(path: Path, connection: sqlite3.Connection, name: str) -> Part:
    quoted = '"' + name.replace('"', '""') + '"'
    columns = tuple(str(row[1]) for row in connection.execute(f"PRAGMA table_info({quoted})"))
    # A table scan is in the order of rowid, or of the key where there is none: the same each time.
    statement = f"SELECT * FROM {quoted}"  # noqa: S608

    def rows() -> Iterator[Row]:
        with _opened(path) as again:
            yield from again.execute(statement)

    def count() -> int:
        with _opened(path) as again:
            return int(again.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0])  # noqa: S608

    return Part(name, columns, rows, count)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\x00":
                raise ImportRefused(f"{path.name}: is not a sqlite 3 file: check the path (an encrypted one must be "
                                    "decrypted first)")  # fmt: skip
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
    except OSError as error:
        raise ImportRefused(f"{path}: cannot be read ({error.strerror}): check the path") from None
    except sqlite3.Error as error:
        raise ImportRefused(f"{path.name}: cannot be opened ({error}): check owner and mode") from None
    try:
        yield connection
    except sqlite3.Error as error:
        # Its text may quote what it could not decode.
        reason = str(error).partition(" with text ")[0]
        raise ImportRefused(
            f"{path.name}: is damaged ({reason}): copy it again while nothing writes to it, "
            "or mend it with sqlite3 .recover"
        ) from None
    finally:
        connection.close()


def pickle(path: Path, mapping: Mapping) -> list[Part]:
    """Tables of a pickle file: a dict of tables, or one table named as the file. Raises ImportRefused.

    A table is a list of dicts, or a dict whose values are dicts (the keys are column ``_key``).
    """
    try:
        if path.stat().st_size > MAX_PICKLE_BYTES:
            raise ImportRefused(f"{path.name}: is larger than {MAX_PICKLE_BYTES} bytes: split it")
        data = path.read_bytes()
    except OSError as error:
        raise ImportRefused(f"{path}: cannot be read ({error.strerror}): check the path") from None
    tables: dict[str, list[dict[str, Any]]] = {}
    for found in pickles.load(data, path.name):
        known = isinstance(found, dict) and [name for name in found if isinstance(name, str) and mapping.target(name)]
        if known:
            for name, table in found.items():
                if str(name) in known:
                    tables.setdefault(str(name), []).extend(_rows(table, f"{path.name}: {name}"))
        else:
            tables.setdefault(path.stem, []).extend(_rows(found, path.name))
    return [_gathered(name, rows) for name, rows in tables.items()]


def _rows(table: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(table, dict) and table and all(isinstance(row, dict) for row in table.values()):
        table = [{"_key": key, **row} for key, row in table.items()]
    elif isinstance(table, dict):
        table = [table]
    if not isinstance(table, (list, tuple)):
        raise ImportRefused(f"{where}: is a {type(table).__name__}, not a list of dicts or a dict of dicts")
    for number, row in enumerate(table, 1):
        if not isinstance(row, dict):
            raise ImportRefused(f"{where}, row {number}: is a {type(row).__name__}, not a dict with names of columns")
    return list(table)


def _gathered(name: str, rows: list[dict[str, Any]]) -> Part:
    columns = tuple(dict.fromkeys(str(key) for row in rows for key in row))
    return Part(name, columns, lambda: (tuple(row.get(column) for column in columns) for row in rows), rows.__len__)

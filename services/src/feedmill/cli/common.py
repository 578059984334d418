"""What the commands share: consoles, the data folder, errors as one line with the right exit code."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer

from feedmill import __version__

P = ParamSpec("P")
R = TypeVar("R")

FAILED, BAD_CONFIG = 1, 2

DATA_DIR = Path(".feedmill")
DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        "-d",
        metavar="DIR",
        help="Folder with the embedded servers' data, logs and state.",
        show_default=True,
    ),
]


def version() -> None:
    """Print the version of feedmill."""
    typer.echo(__version__)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the command with one line on stderr."""
    from feedmill.shared.log import redact

    typer.echo(redact(message), err=True)
    raise typer.Exit(code)


def told(command: Callable[P, R]) -> Callable[P, R]:
    """Decorator: errors a user can mend become their message and an exit code, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader (head, less) went away: nothing more to say, also not when the interpreter flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            fail(str(error), code)

    return wrapped


def _exit_code(error: Exception) -> int | None:
    """By name, so that nothing is imported only to be compared with."""
    names = {kind.__name__ for kind in type(error).__mro__}
    wrong = {"ResourceError", "ConfigError", "PlanError", "RedisUrlError", "UnknownVenue", "UsageError"}
    if names & (wrong | {"AccountError", "SecretsError", "SealError", "ImportRefused"}):
        return BAD_CONFIG
    if names & {"EmbeddedError", "ManagerError", "MigrateError", "QueryError", "TelegramError"}:
        return FAILED
    return None


def folder(data_dir: Path) -> Path:
    return data_dir.expanduser().absolute()


def command() -> str:
    """How to call this program again from here: its name where PATH has it, else the path of its script."""
    own = Path(sys.executable).with_name("feedmill")
    found = shutil.which("feedmill")
    if not own.exists() or (found is not None and Path(found).samefile(own)):
        return "feedmill"
    here = Path.cwd()
    return str(own.relative_to(here) if own.is_relative_to(here) else own)


def api_port(data_dir: Path) -> int | None:
    """Port of the manager's API, None when none runs on this folder (as far as its file says)."""
    try:
        return int((folder(data_dir) / "run" / "api.port").read_text())
    except (OSError, ValueError):
        return None


def is_terminal() -> bool:
    return sys.stdout.isatty()


def seconds(text: str) -> float:
    """``60``, ``60s``, ``5m``, ``1h`` -> seconds; raises typer.BadParameter."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    body = text.strip().lower()
    for unit in ("ms", "s", "m", "h", "d"):
        if body.endswith(unit):
            number, factor = body[: -len(unit)], units[unit]
            break
    else:
        number, factor = body, 1.0
    try:
        value = float(number) * factor
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise typer.BadParameter(f"{text!r} is not a duration: write 60s, 5m or 1h")
    return value


def moment(text: str | None, option: str) -> int | None:
    """A moment, or a duration before now -> ns; ends the command when it is neither."""
    from datetime import UTC, datetime

    from feedmill.shared.clock import SECOND, now_ns

    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now_ns() - int(seconds(text) * SECOND)
        except typer.BadParameter:
            fail(f"{option} {text!r}: write 2h, 30m (ago), or 2026-01-31T12:00 (UTC)", BAD_CONFIG)
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return int(at.timestamp()) * SECOND + at.microsecond * 1000


def human_bytes(size: float | None) -> str:
    if size is None:
        return "?"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit in ("B", "KiB", "MiB") else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def human_seconds(value: float | None) -> str:
    if value is None:
        return "?"
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 60:
        return f"{value:g} s" if value == int(value) else f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """The rows as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def plain(value: Any) -> Any:
    """A database value as JSON and CSV take it: exact decimals and times as text."""
    import datetime
    import decimal
    import uuid

    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (datetime.timedelta, uuid.UUID)):
        return str(value)
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).hex()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)

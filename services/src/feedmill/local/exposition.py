"""Joins the Prometheus texts of several processes into one, each sample with a ``process`` label. Pure."""

from __future__ import annotations

from collections.abc import Mapping

_SUFFIXES = ("_bucket", "_count", "_sum", "_created", "_total", "_info")


def join(texts: Mapping[str, str]) -> str:
    """``texts``: process -> its /metrics. Families stay together, as the format demands."""
    comments: dict[str, dict[str, str]] = {}
    samples: dict[str, list[str]] = {}
    for process, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                parts = line.split(" ", 3)
                if len(parts) >= 3 and parts[1] in ("HELP", "TYPE"):
                    family = parts[2]
                    comments.setdefault(family, {}).setdefault(parts[1], line)
                    samples.setdefault(family, [])
            elif line.strip():
                name = line.split("{", 1)[0].split(" ", 1)[0]
                owner = family if name == family or _belongs(name, family) else name
                samples.setdefault(owner, []).append(_labelled(line, name, process))
    lines: list[str] = []
    for family, found in samples.items():
        if found:
            lines += comments.get(family, {}).values()
            lines += found
    return "".join(f"{line}\n" for line in lines)


def _belongs(name: str, family: str) -> bool:
    return bool(family) and any(name == family + suffix for suffix in _SUFFIXES)


def _labelled(line: str, name: str, process: str) -> str:
    label = f'process="{escape(process)}"'
    rest = line[len(name) :]
    if rest.startswith("{"):
        inside = rest[1:]
        return f"{name}{{{label}{'' if inside.startswith('}') else ','}{inside}"
    return f"{name}{{{label}}}{rest}"


def escape(value: str) -> str:
    """A label value as the format wants it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def value_of(text: str, name: str) -> float | None:
    """Sum of all samples called ``name`` in a /metrics text; None when there is none."""
    total: float | None = None
    for line in text.splitlines():
        if line.startswith(name) and line[len(name) : len(name) + 1] in ("{", " "):
            rest = line.rsplit("}", 1)[-1] if "{" in line else line[len(name) :]
            total = (total or 0.0) + float(rest.split()[0])
    return total

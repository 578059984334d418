"""A message's text for Telegram: escaped MarkdownV2, cut to what a message may hold. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MOST = 4096
"""UTF-16 units of a message. Counted with the escapes, of which Telegram counts none: on the safe side."""
_SPECIAL = re.compile(r"([_*\[\]()~`>#+\-=|{}.!\\])")
_NOT_SHOWN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of a text around."""


@dataclass(frozen=True, slots=True)
class Block:
    """One paragraph of a message: a bold title and plain lines below it."""

    icon: str
    title: str
    lines: tuple[str, ...] = ()


def escape(text: str) -> str:
    """``text`` as MarkdownV2 shows it character by character, whatever is in it."""
    return _SPECIAL.sub(r"\\\1", text)


def clean(text: str) -> str:
    """One line without control characters, from wherever it comes."""
    return _NOT_SHOWN.sub(" ", text.replace("\n", " ")).strip()


def units(text: str) -> int:
    """Length as Telegram counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def marked(block: Block) -> str:
    lines = [f"{block.icon} *{escape(clean(block.title))}*", *(escape(clean(line)) for line in block.lines)]
    return "\n".join(lines)


def plain(block: Block) -> str:
    return "\n".join([f"{block.icon} {clean(block.title)}", *(clean(line) for line in block.lines)])


def fitted(block: Block, most: int = MOST) -> list[Block]:
    """The block in pieces that fit into a message each; a line that is too long by itself is cut."""
    head = units(marked(Block(block.icon, block.title)))
    pieces: list[Block] = []
    lines: list[str] = []
    used = head
    for line in block.lines:
        short = _cut(line, most - head - 1)
        cost = units(escape(clean(short))) + 1
        if lines and used + cost > most:
            pieces.append(Block(block.icon, block.title, tuple(lines)))
            lines, used = [], head
        lines.append(short)
        used += cost
    return [*pieces, Block(block.icon, block.title, tuple(lines))]


def _cut(line: str, most: int) -> str:
    """As much of a line as fits, with an ellipsis where it was cut."""
    text = clean(line)
    if units(escape(text)) <= most:
        return text
    while units(escape(text)) > most - 1:
        text = text[: max(1, len(text) * 9 // 10)] if len(text) > 1 else ""
    return text + "…"


def together(blocks: Iterable[Block], *, as_marked: bool) -> str:
    return "\n\n".join(marked(block) if as_marked else plain(block) for block in blocks)

"""``python -m tools.metrics``: write docs/reference/metrics.md; with ``--check`` only compare."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.metrics.page import page

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/metrics.md"


def main() -> None:
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            raise SystemExit("docs/reference/metrics.md is not up to date: run `make docs` and commit it")
        return
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

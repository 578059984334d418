"""``python -m tools.dashboards``: write the chart's dashboards; with ``--check`` only compare."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.dashboards import accounts, backup, delivery, feed, operator, overview
from tools.dashboards.grafana import text_of

BOARDS = (overview.BOARD, feed.BOARD, delivery.BOARD, accounts.BOARD, operator.BOARD, backup.BOARD)
FOLDER = Path(__file__).resolve().parents[2] / "helm/feedmill/files/dashboards"


def generated() -> dict[str, str]:
    """File name -> text."""
    return {f"{board.name}.json": text_of(board) for board in BOARDS}


def main() -> None:
    made = generated()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    if "--check" in sys.argv[1:]:
        if there != made:
            raise SystemExit("helm/feedmill/files/dashboards is not up to date: run `make docs` and commit it")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in there.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

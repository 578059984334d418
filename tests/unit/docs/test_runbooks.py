"""Every alert has its page, and every page its alert."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from feedmill_operator.build import monitoring
from feedmill_operator.build.monitoring import Alert

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs" / "runbooks"


def _operators() -> list[Alert]:
    """Those of the chart."""
    found = yaml.safe_load((ROOT / "helm" / "feedmill" / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    return [
        Alert(each["alert"], each["expr"], each["for"], each["labels"]["severity"], each["annotations"]["summary"])
        for each in found
    ]


ALERTS = (*monitoring.ALERTS, *_operators())


def test_no_page_without_an_alert_and_no_alert_without_a_page() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} - {"README"} == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_a_page_says_what_it_means_costs_and_what_to_do(alert: Alert) -> None:
    text = (FOLDER / f"{alert.name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {alert.name}\n")
    places = [text.index(f"**{word}**") for word in ("Means", "Costs", "Look", "Do")]
    assert places == sorted(places)
    row = next(
        line for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines() if f"[{alert.name}]" in line
    )
    assert f"| {alert.severity} |" in row


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_the_numbers_of_a_page_are_those_of_its_alert(alert: Alert) -> None:
    means = re.search(r"\*\*Means\*\*:(.*?)\n\n", (FOLDER / f"{alert.name}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert means is not None
    limit = re.search(r"> (\d+)$", alert.expression)
    counts = "changes(" in alert.expression or "increase(" in alert.expression
    if limit and limit[1] != "0":
        assert (f"more than {limit[1]} times" if counts else f"{limit[1]} s") in means[1]
    window = re.search(r"\[(\d+)m\]", alert.expression)
    lasts = int(alert.lasts.removesuffix("m"))
    if window is None:
        assert (f"{lasts} minutes" if lasts > 1 else "a minute") in means[1]
    elif window[1] != "10":
        assert f"last {window[1]} minutes" in means[1]

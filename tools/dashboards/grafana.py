"""A dashboard as Grafana's JSON."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from tools.dashboards.panels import Board, Choice, Panel

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "feedmill"
HEIGHT = {"graph": 8, "stat": 4, "table": 8}


def text_of(board: Board) -> str:
    """Its JSON, the same for the same board."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(f"feedmill-{board.name}")
        .description(board.text)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Feedmill")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for choice in board.choices:
        made.with_variable(_variable(choice))
    number = 0
    for row in board.rows:
        number += 1
        made.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            made.with_panel(_panel(panel).id(number))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


def _variable(choice: Choice) -> dashboard.QueryVariable:
    made = (
        dashboard.QueryVariable(choice.name)
        .datasource(SOURCE)
        .query(f"label_values({choice.metric}, {choice.label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    if choice.many:
        # Not a list of the names found: what has no such label (local mode's own) is shown too.
        every = models.VariableOption(text="All", value="$__all", selected=True)
        made.multi(True).include_all(True).all_value(".*").current(every)
    return made


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel | table.Panel:
    made: timeseries.Panel | stat.Panel | table.Panel
    if panel.kind == "graph":
        made = _graph(panel)
    elif panel.kind == "stat":
        made = (
            stat.Panel()
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            .graph_mode(shapes.BigValueGraphMode.NONE)
            .color_mode(shapes.BigValueColorMode.NONE)
        )
    else:
        made = table.Panel()
    made.title(panel.title).description(panel.text).datasource(SOURCE).unit(panel.unit)
    made.height(HEIGHT[panel.kind]).span(panel.width)
    if panel.none:
        made.no_value(panel.none)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        asked = prometheus.Dataquery().expr(query.expression).ref_id(letter).legend_format(query.legend)
        if panel.kind == "table":
            asked.instant().format(PromQueryFormat.TABLE)
        else:
            asked.range().exemplar("_bucket{" in query.expression)  # Latencies name the trace of one that took so long.
        made.with_target(asked)
    return made


def _graph(panel: Panel) -> timeseries.Panel:
    legend = (
        common.VizLegendOptions()
        .display_mode(shapes.LegendDisplayMode.LIST)
        .placement(shapes.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    tooltip = common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING)
    made = timeseries.Panel().legend(legend).tooltip(tooltip).fill_opacity(10).min(0)
    made.show_points(shapes.VisibilityMode.NEVER)
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL)).fill_opacity(40)
    return made

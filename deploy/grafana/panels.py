"""What the dashboards are put together from: panels that say what they show, in what unit, and where to read on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from queries import AUTOSCALER, JOB

RUNBOOK = "https://git.example/risk-assessment-service/blob/main/docs/runbook.md"
"""Where the runbook can be read: a variable of each dashboard, and build.py's --runbook."""
TAG = "kyb"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
NEEDS_CLUSTER = "Needs kube-state-metrics."
COLUMNS = 24
GREEN, YELLOW, RED = "green", "yellow", "red"

Query = tuple[str, str]
"""PromQL and the legend of its series."""
AnyPanel = stat.Panel | timeseries.Panel | heatmap.Panel | statetimeline.Panel
P = TypeVar("P", bound=AnyPanel)


def number(
    title: str,
    description: str,
    query: str,
    *,
    unit: str,
    section: str,
    limits: tuple[float, float] | None = None,
    falling: bool = False,
    decimals: int | None = None,
    width: int = 4,
) -> stat.Panel:
    """One number as it is now. limits: where it turns yellow, and red.  falling: it does so below them."""
    panel = stat.Panel().graph_mode(kinds.BigValueGraphMode.AREA).color_mode(kinds.BigValueColorMode.VALUE)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel = _with(panel, title, description, ((query, ""),), unit, section, width, 4)
    if decimals is not None:
        panel = panel.decimals(decimals)
    return panel.thresholds(_steps(limits, falling))


def words(title: str, description: str, query: str, legend: str, *, section: str, width: int = 8) -> stat.Panel:
    """The labels of series, one beside the other."""
    panel = stat.Panel().graph_mode(kinds.BigValueGraphMode.NONE).text_mode(kinds.BigValueTextMode.VALUE_AND_NAME)
    panel = panel.color_mode(kinds.BigValueColorMode.NONE)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return _with(panel, title, description, ((query, legend),), "short", section, width, 4)


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    section: str,
    limits: tuple[float, float] | None = None,
    stacked: bool = False,
    stepped: bool = False,
    least: float | None = 0,
    greatest: float | None = None,
    width: int = 8,
) -> timeseries.Panel:
    """Values over time. limits: lines where they become worth a look, and bad."""
    legend = common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.TABLE).show_legend(True)
    legend = legend.placement(kinds.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])
    tooltip = common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)
    panel = timeseries.Panel().legend(legend).tooltip(tooltip).fill_opacity(25 if stacked else 8).line_width(1)
    panel = panel.show_points(kinds.VisibilityMode.NEVER)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    if stepped:
        panel = panel.line_interpolation(kinds.LineInterpolation.STEP_AFTER)
    if least is not None:
        panel = panel.min(least)
    if greatest is not None:
        panel = panel.max(greatest)
    if limits is not None:
        style = common.GraphThresholdsStyleConfig().mode(kinds.GraphTresholdsStyleMode.DASHED)
        panel = panel.thresholds(_steps(limits)).thresholds_style(style)
    return _with(panel, title, description, queries, unit, section, width, 8)


def buckets(title: str, description: str, query: str, *, unit: str, section: str, width: int = 8) -> heatmap.Panel:
    """A histogram's buckets over time. query: summed by le."""
    panel = heatmap.Panel().calculate(False).y_axis(heatmap.YAxisConfig().unit(unit))
    panel = panel.color(heatmap.HeatmapColorOptions().scheme("Oranges").steps(64))
    panel = _with(panel, title, description, (), unit, section, width, 8)
    return panel.with_target(_target(0, (query, "{{le}}")).format(PromQueryFormat.HEATMAP))


def states(
    title: str,
    description: str,
    query: Query,
    names: Mapping[int, tuple[str, str]],
    *,
    section: str,
    width: int = 8,
) -> statetimeline.Panel:
    """What state something was in over time. names: of each value, the word and its colour."""
    told = {str(value): model.ValueMappingResult(text=text, color=color) for value, (text, color) in names.items()}
    panel = statetimeline.Panel().merge_values(True).show_value(kinds.VisibilityMode.AUTO)
    panel = panel.mappings([model.ValueMap(told)])
    return _with(panel, title, description, (query,), "none", section, width, 8)


class Board:
    """A dashboard of rows. name: that of its file, and the end of its uid."""

    def __init__(self, name: str, title: str, description: str, *, minutes: int = 60) -> None:
        self.name = name
        self._rows: list[tuple[str, list[AnyPanel]]] = []
        self._dashboard = (
            dashboard.Dashboard(title)
            .uid(f"{TAG}-{name}")
            .description(description)
            .tags([TAG])
            .timezone("utc")
            .time(f"now-{minutes}m", "now")
            .refresh("30s")
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
        )

    def row(self, title: str, *panels: AnyPanel) -> None:
        """Panels below a heading, in lines of 24 columns."""
        self._rows.append((title, list(panels)))

    def built(self, runbook: str) -> model.Dashboard:
        """As Grafana imports it. runbook: its address.  Raises ValueError where a panel stands half outside."""
        board = self._dashboard
        for variable in _variables(runbook):
            board = board.with_variable(variable)
        others = dashboard.DashboardLink("Dashboards").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
        board = board.link(others.as_dropdown(True).include_vars(True).keep_time(True))
        board = board.link(_link("Runbook", "${runbook}"))
        for note in (_deployments(), _scalings()):
            board = board.annotation(note)
        id = 0
        for title, panels in self._rows:
            id += 1
            board = board.with_row(dashboard.Row(title).id(id))
            for panel in panels:
                id += 1
                board = board.with_panel(panel.id(id))
        made = board.build()
        _check_lines(made)
        return made


def _variables(
    runbook: str,
) -> list[dashboard.DatasourceVariable | dashboard.QueryVariable | dashboard.ConstantVariable]:
    def chosen(name: str, label: str, query: str) -> dashboard.QueryVariable:
        every = model.VariableOption(text="All", value="$__all", selected=True)
        variable = dashboard.QueryVariable(name).label(label).query(query).datasource(SOURCE).current(every)
        variable = variable.include_all(True).all_value(".*").multi(True).sort(model.VariableSort.ALPHABETICAL_ASC)
        return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)

    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        chosen("namespace", "Namespace", f'label_values(up{{job="{JOB}"}}, namespace)'),
        chosen("pod", "Pod", f'label_values(up{{job="{JOB}",namespace=~"$namespace"}}, pod)'),
        dashboard.ConstantVariable("runbook").label("Runbook").value(runbook),
    ]


def _deployments() -> dashboard.AnnotationQuery:
    """A mark where a version was not there five minutes before."""
    seen = f'service_info{{job="{JOB}",namespace=~"$namespace"}}'
    expr = f"count by (version, model) ({seen}) unless count by (version, model) ({seen} offset 5m)"
    return _note("New version", "blue", expr)


def _scalings() -> dashboard.AnnotationQuery:
    """A mark where the autoscaler changed its mind. Needs kube-state-metrics."""
    wanted = "kube_horizontalpodautoscaler_status_desired_replicas"
    told = f'{wanted}{{namespace=~"$namespace",horizontalpodautoscaler="{AUTOSCALER}"}}'
    return _note("Scaled", "purple", f"changes({told}[1m]) > 0")


def _note(name: str, color: str, expr: str) -> dashboard.AnnotationQuery:
    return dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(color).expr(expr)


def _with(
    panel: P, title: str, description: str, queries: tuple[Query, ...], unit: str, section: str, width: int, height: int
) -> P:
    panel = panel.title(title).description(description).unit(unit).datasource(SOURCE).span(width).height(height)
    panel = panel.links([_link("Runbook", f"${{runbook}}#{section}")])
    for place, query in enumerate(queries):
        panel = panel.with_target(_target(place, query))
    return panel


def _target(place: int, query: Query) -> prometheus.Dataquery:
    expr, legend = query
    target = prometheus.Dataquery().expr(expr).ref_id("ABCDEFGH"[place]).range()
    return target.legend_format(legend) if legend else target


def _link(title: str, url: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url).target_blank(True)


def _steps(limits: tuple[float, float] | None, falling: bool = False) -> dashboard.ThresholdsConfig:
    steps: list[tuple[str, float | None]] = [(GREEN, None)]
    if limits is not None and falling:
        steps = [(RED, None), (YELLOW, limits[1]), (GREEN, limits[0])]
    elif limits is not None:
        steps += [(YELLOW, limits[0])] * (limits[0] < limits[1]) + [(RED, limits[1])]
    made = [model.Threshold(color=color, value=value) for color, value in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def _check_lines(made: model.Dashboard) -> None:
    """That no panel stands half outside, and no line has a gap at its end."""
    for panel in made.panels or ():
        place = panel.grid_pos
        if place is None or place.x + place.w > COLUMNS:
            raise ValueError(f"{made.title}: {panel.title} does not fit beside the panels before it")

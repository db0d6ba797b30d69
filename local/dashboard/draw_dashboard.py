"""Draws a dashboard's widgets where CloudWatch would put them."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from local.aws.metric_store import MetricStore
from local.dashboard.read_widgets import Span, find_period, is_single, read_lines
from local.list_alarms import AlarmView

_COLUMNS: Final = 24
_INCHES_PER_UNIT: Final = 0.85
_MOST_LABELS: Final = 9
_GOOD: Final = "#2f7d4f"
_BAD: Final = "#b3261e"
_QUIET: Final = "#777777"


@dataclass(frozen=True)
class DashboardData:
    """What the widgets show."""

    store: MetricStore
    span: Span
    alarms: Sequence[AlarmView]
    decisions: Sequence[Sequence[str]]
    """Rows of the log widget: time, fleet, action, desired, outcome, reason."""


def draw_dashboard(body: Mapping[str, Any], data: DashboardData, path: Path) -> None:
    """Write a PNG file of all widgets; raises OSError if it cannot be written."""
    widgets = body["widgets"]
    rows = max(widget["y"] + widget["height"] for widget in widgets)
    figure = Figure(figsize=(_COLUMNS * _INCHES_PER_UNIT, rows * _INCHES_PER_UNIT))
    for widget in widgets:
        margin = 0.1 if widget["type"] == "text" else 0.55
        axes = figure.add_axes(
            (
                (widget["x"] + margin) / _COLUMNS,
                1 - (widget["y"] + widget["height"] - margin) / rows,
                (widget["width"] - 1.4 * margin) / _COLUMNS,
                (widget["height"] - 1.9 * margin) / rows,
            )
        )
        _draw_widget(axes, widget, data)
    figure.savefig(path, format="png", dpi=60)


def _draw_widget(axes: Axes, widget: Mapping[str, Any], data: DashboardData) -> None:
    properties = widget["properties"]
    match widget["type"]:
        case "text":
            _draw_text(axes, properties["markdown"])
        case "alarm":
            axes.set_title(properties["title"], loc="left", fontsize=11)
            _draw_alarms(axes, data.alarms)
        case "log":
            axes.set_title(properties["title"], loc="left", fontsize=11)
            _draw_decisions(axes, data.decisions)
        case "metric":
            axes.set_title(properties["title"], loc="left", fontsize=11)
            if is_single(properties):
                _draw_numbers(axes, properties, data)
            else:
                _draw_graph(axes, properties, data)


def _draw_text(axes: Axes, markdown: str) -> None:
    axes.set_axis_off()
    heading, _, rest = markdown.removeprefix("# ").partition("\n")
    axes.text(0, 0.95, heading, fontsize=18, weight="bold", va="top")
    axes.text(0, 0.3, rest.replace("`", ""), fontsize=11, va="top")


def _draw_alarms(axes: Axes, alarms: Sequence[AlarmView]) -> None:
    axes.set_axis_off()
    columns = 5
    rows = math.ceil(len(alarms) / columns)
    for number, alarm in enumerate(alarms):
        colour = {"OK": _GOOD, "ALARM": _BAD}.get(alarm.state, _QUIET)
        x, y = number // rows / columns, 1 - (number % rows + 0.5) / rows
        axes.text(x, y, f"● {alarm.name}", color=colour, fontsize=10, va="center")


def _draw_decisions(axes: Axes, decisions: Sequence[Sequence[str]]) -> None:
    axes.set_axis_off()
    for number, row in enumerate(decisions[:14]):
        y = 1 - (number + 0.5) / 14
        for x, text in zip((0, 0.07, 0.13, 0.22, 0.26, 0.34), row, strict=True):
            shown = textwrap.shorten(text, 110, placeholder=" ...")
            axes.text(x, y, shown, fontsize=9, va="center")


def _draw_numbers(axes: Axes, properties: Mapping[str, Any], data: DashboardData) -> None:
    axes.set_axis_off()
    lines = read_lines(properties, data.store, data.span)
    for number, line in enumerate(lines):
        value = line.values[0]
        x = (number + 0.5) / len(lines)
        text = "--" if value is None else f"{value:.3g}"
        axes.text(x, 0.6, text, fontsize=28, ha="center", va="center")
        axes.text(x, 0.3, line.label, fontsize=11, ha="center", va="center", color=_QUIET)


def _draw_graph(axes: Axes, properties: Mapping[str, Any], data: DashboardData) -> None:
    seconds = find_period(properties, data.span)
    periods = data.span.list_periods(seconds)
    minutes = [(start - data.span.start) / 60 for start in periods]
    base = [0.0] * len(periods)
    has_label = 0
    for line in read_lines(properties, data.store, data.span):
        measured = any(value is not None for value in line.values)
        # CloudWatch lists what has no value, too; here it would only hide the others.
        label = line.label if measured and has_label < _MOST_LABELS else None
        has_label += label is not None
        values = [math.nan if value is None else value for value in line.values]
        if properties.get("stacked"):
            top = [b + (0 if math.isnan(v) else v) for b, v in zip(base, values, strict=True)]
            axes.fill_between(minutes, base, top, step="post", alpha=0.6, label=label)
            base = top
        elif measured:
            axes.plot(
                minutes, values, drawstyle="steps-post", marker=".", linewidth=1.2, label=label
            )
    for limit in properties.get("annotations", {}).get("horizontal", ()):
        axes.axhline(limit["value"], color=_BAD, linewidth=1, linestyle="--")
    axes.set_xlim(0, (data.span.end - data.span.start) / 60)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.3)
    if has_label:
        axes.legend(fontsize=8, loc="upper left", ncols=2, framealpha=0.6)

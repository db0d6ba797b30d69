"""The picture of the dashboard is of the template's own dashboard, and shows what was measured."""

from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from local.aws.metric_store import Metric, MetricStore
from local.dashboard.draw_dashboard import DashboardData, draw_dashboard
from local.dashboard.read_widgets import Line, Span, read_lines
from local.list_alarms import AlarmView
from tests.static.deploy_template import Deployment

SPAN = Span(0, 600)


def find_lines(deployment: Deployment, title: str, store: MetricStore) -> list[Line]:
    (widget,) = [
        widget
        for widget in deployment.dashboard["widgets"]
        if widget["properties"].get("title") == title
    ]
    return read_lines(widget["properties"], store, SPAN)


def make_store(deployment: Deployment, **fleet_values: float) -> MetricStore:
    store = MetricStore()
    dimensions = {"service": "ml-service", "fleet": "pulid"}
    for name, value in fleet_values.items():
        metric = Metric.of(f"{deployment.stage}-ml-service", name, dimensions)
        store.put(metric, 60, [value])
    return store


def test_a_graph_has_a_line_for_each_fleet_with_what_was_measured(deployment: Deployment):
    store = make_store(deployment, WaitingJobs=4)
    lines = find_lines(deployment, "Jobs waiting", store)
    assert [line.label for line in lines] == ["lip-sync", "pulid", "makeup"]
    assert lines[1].values[:3] == [None, 4, None]
    assert set(lines[0].values) == {None}


def test_a_search_has_a_line_for_each_workflow(deployment: Deployment):
    store = MetricStore()
    dimensions = {"service": "ml-service", "fleet": "pulid", "workflow": "flux-prompt"}
    store.put(Metric.of(f"{deployment.stage}-ml-service", "RunSeconds", dimensions), 0, [7])
    lines = find_lines(deployment, "Seconds that a run takes, p95, by workflow", store)
    assert lines == [Line("flux-prompt RunSeconds", [7, None])]


def test_the_cost_is_that_of_the_hours_paid(deployment: Deployment):
    """Three instances of three fleets over ten minutes are half an hour."""
    store = MetricStore()
    for fleet in ("lip-sync", "pulid", "makeup"):
        dimensions = {"service": "ml-service", "fleet": fleet}
        metric = Metric.of(f"{deployment.stage}-ml-service", "Instances", dimensions)
        for minute in range(10):
            store.put(metric, minute * 60, [1])
    jobs = Metric.of(f"{deployment.stage}-ml-service", "JobsSucceeded", {"service": "ml-service"})
    store.put(jobs, 0, [1, 1])
    lines = find_lines(deployment, "In the chosen time", store)
    assert {line.label: line.values for line in lines} == {
        "jobs that succeeded": [2],
        "instance hours": [0.5],
        "cost of instances": [0.503],
        "cost per job that succeeded": [0.2515],
    }


def test_every_widget_can_be_drawn(deployment: Deployment, tmp_path: Path):
    data = DashboardData(
        store=make_store(deployment, WaitingJobs=4, Instances=1),
        span=SPAN,
        alarms=[AlarmView("a", "ALARM", datetime.now(UTC), "")],
        decisions=[("12:00", "pulid", "SCALE_OUT", "2", "DONE", "Because.")],
    )
    draw_dashboard(deployment.dashboard, data, tmp_path / "dashboard.png")
    with Image.open(tmp_path / "dashboard.png") as picture:
        assert picture.width > 1000

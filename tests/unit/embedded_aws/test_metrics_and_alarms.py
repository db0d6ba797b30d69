"""What the embedded CloudWatch reads, computes and judges."""

import json
from typing import Any

import pytest

from local.aws.alarm_rules import judge_alarm, judge_datapoints
from local.aws.metric_lines import read_metric_line
from local.aws.metric_math import MetricMathError, evaluate_expression
from local.aws.metric_store import Metric, MetricStore

LENGTH = Metric.of("stage", "Length", {"fleet": "pulid"})
ALARM: dict[str, Any] = {
    "Namespace": "stage",
    "MetricName": "Length",
    "Dimensions": [{"Name": "fleet", "Value": "pulid"}],
    "Statistic": "Maximum",
    "Period": 60,
    "EvaluationPeriods": 3,
    "ComparisonOperator": "GreaterThanThreshold",
    "Threshold": 5,
    "TreatMissingData": "notBreaching",
}


def test_a_line_in_the_embedded_format_is_read_once_per_set_of_dimensions():
    line = json.dumps(
        {
            "_aws": {
                "Timestamp": 90_000,
                "CloudWatchMetrics": [
                    {
                        "Namespace": "stage",
                        "Dimensions": [["fleet"], []],
                        "Metrics": [{"Name": "Length", "Unit": "Count"}],
                    }
                ],
            },
            "fleet": "pulid",
            "Length": [3.0, 4.0],
        }
    )
    found = [(m.metric, m.at, list(m.values)) for m in read_metric_line(line)]
    assert found == [
        (LENGTH, 90.0, [3.0, 4.0]),
        (Metric.of("stage", "Length", {}), 90.0, [3.0, 4.0]),
    ]


@pytest.mark.parametrize(
    "line", ["", "START RequestId", '{"_aws": 1}', '{"_aws": {}}', 'no json "_aws"']
)
def test_any_other_line_measures_nothing(line: str):
    assert list(read_metric_line(line)) == []


@pytest.mark.parametrize(
    ("statistic", "value"),
    [
        ("Sum", 10),
        ("Average", 2.5),
        ("Minimum", 1),
        ("Maximum", 4),
        ("SampleCount", 4),
        ("p50", 2),
        ("p95", 4),
    ],
)
def test_statistics_are_over_the_minutes_asked_for(statistic: str, value: float):
    store = MetricStore()
    store.put(LENGTH, 59, [99])
    store.put(LENGTH, 60, [1, 4])
    store.put(LENGTH, 179, [3, 2])
    store.put(LENGTH, 180, [99])
    assert store.compute(LENGTH, statistic, start=60, seconds=120) == value
    assert store.compute(LENGTH, statistic, start=240, seconds=60) is None


def test_values_are_forgotten_after_six_hours():
    store = MetricStore()
    store.put(LENGTH, 0, [1])
    store.put(LENGTH, 7 * 3600, [1])
    assert store.compute(LENGTH, "Sum", start=0, seconds=60) is None


def test_metrics_are_found_by_their_set_of_dimensions():
    store = MetricStore()
    others = Metric.of("stage", "Length", {"fleet": "a", "workflow": "w"})
    for metric in (LENGTH, others):
        store.put(metric, 0, [1])
    assert store.find("stage", "Length", frozenset({"fleet"})) == [LENGTH]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("(a + b) / 60 * 1.5", 0.1),
        ("a > 0 AND b < 1", 0),
        ("a > 0 OR b < 1", 1),
        ("a >= 1", 1),
        ("a / (b - 3)", None),
        ("a + none", None),
        ("a > 0 AND none > 0", None),
    ],
)
def test_metric_math(expression: str, value: float | None):
    found = evaluate_expression(expression, {"a": 1, "b": 3, "none": None})
    assert found == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize("expression", ["c", "SUM(a)", "a >", "'text'"])
def test_metric_math_that_is_not_known_is_refused(expression: str):
    with pytest.raises(MetricMathError):
        evaluate_expression(expression, {"a": 1})


@pytest.mark.parametrize(
    ("missing", "datapoints", "state"),
    [
        ("notBreaching", [6, 6, 6, 5, 5], "ALARM"),
        ("notBreaching", [6, 5, 6, 6, 6], "OK"),
        ("notBreaching", [6, None, 6, 6, None], "ALARM"),
        ("notBreaching", [6, None, 6, 5, 6], "OK"),
        ("notBreaching", [6, None, 6, None, None], "OK"),
        ("breaching", [6, None, None, None, None], "ALARM"),
        ("breaching", [None, None, None, None, None], "ALARM"),
        ("breaching", [None, None, None, None, 5], "OK"),
        ("ignore", [None, None, None, None, None], "before"),
        ("ignore", [6, None, None, None, None], "before"),
        ("ignore", [5, None, None, None, None], "OK"),
        ("missing", [6, None, None, None, None], "ALARM"),
        ("missing", [None, None, None, None, None], "INSUFFICIENT_DATA"),
    ],
)
def test_an_alarm_rings_when_all_its_periods_exceed_the_limit(missing, datapoints, state):
    """What lacks is made up for by older values, and only then as the alarm says."""
    alarm = {**ALARM, "TreatMissingData": missing}
    assert judge_datapoints(alarm, datapoints, state="before") == state


def test_an_alarm_looks_at_the_periods_before_the_minute():
    store = MetricStore()
    for minute, value in enumerate([6, 6, 6, 5]):
        store.put(LENGTH, minute * 60, [value])
    states = [judge_alarm(ALARM, store, now=60 * n, state="OK") for n in (2, 3, 4)]
    assert states == ["OK", "ALARM", "OK"]


def test_periods_may_be_longer_than_a_minute():
    store = MetricStore()
    for minute in range(10):
        store.put(LENGTH, minute * 60, [6])
    alarm = {**ALARM, "Period": 300, "EvaluationPeriods": 2, "Statistic": "Minimum"}
    assert [judge_alarm(alarm, store, now=now, state="OK") for now in (300, 600)] == ["OK", "ALARM"]

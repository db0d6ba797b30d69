"""How CloudWatch judges an alarm: the last periods' values, their limit, and what is missing."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from local.aws.metric_math import evaluate_expression
from local.aws.metric_store import MINUTE, Metric, MetricStore

AlarmState = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]

_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}

# CloudWatch looks at some more periods than an alarm names, to have enough values if some lack.
# How many is not documented for all; its own example has five for three.
_SPARE_PERIODS: Final = 2


def judge_alarm(
    alarm: Mapping[str, Any], store: MetricStore, *, now: float, state: AlarmState
) -> AlarmState:
    """Give an alarm's state at the beginning of a minute; ``state`` is the one before.

    The alarm is as CloudWatch's API describes it; all of its periods have to be out of the limit.
    """
    period = find_period(alarm)
    datapoints = [
        _compute_datapoint(alarm, store, start=now - period * number, seconds=period)
        for number in range(1, alarm["EvaluationPeriods"] + _SPARE_PERIODS + 1)
    ]
    return judge_datapoints(alarm, datapoints, state=state)


def judge_datapoints(
    alarm: Mapping[str, Any], datapoints: Sequence[float | None], *, state: AlarmState
) -> AlarmState:
    """Give the state that follows from the values of the latest periods, None where one lacks.

    The latest comes first. Values that lack are made up for only where the others are too few.
    """
    exceeds = _COMPARISONS[alarm["ComparisonOperator"]]
    needed = alarm["EvaluationPeriods"]
    verdicts = [exceeds(value, alarm["Threshold"]) for value in datapoints if value is not None]
    if not all(verdicts[:needed]):
        return "OK"
    if len(verdicts) >= needed:
        return "ALARM"
    match alarm.get("TreatMissingData", "missing"):
        case "breaching":
            return "ALARM"
        case "notBreaching":
            return "OK"
        case "ignore":
            return state
        case _:
            return "ALARM" if verdicts else "INSUFFICIENT_DATA"


def list_metrics(alarm: Mapping[str, Any]) -> Mapping[str, tuple[Metric, str]]:
    """Give the metrics that an alarm looks at with their statistics, by their ids."""
    if not alarm.get("Metrics"):
        statistic = alarm.get("Statistic") or alarm["ExtendedStatistic"]
        return {"": (_read_metric(alarm), statistic)}
    return {
        query["Id"]: (_read_metric(query["MetricStat"]["Metric"]), query["MetricStat"]["Stat"])
        for query in alarm["Metrics"]
        if "MetricStat" in query
    }


def find_period(alarm: Mapping[str, Any]) -> int:
    """Give the seconds of one of an alarm's periods."""
    periods = [q["MetricStat"]["Period"] for q in alarm.get("Metrics") or () if "MetricStat" in q]
    return max(int(max(periods) if periods else alarm["Period"]), MINUTE)


def _compute_datapoint(
    alarm: Mapping[str, Any], store: MetricStore, *, start: float, seconds: float
) -> float | None:
    values = {
        key: store.compute(metric, statistic, start=start, seconds=seconds)
        for key, (metric, statistic) in list_metrics(alarm).items()
    }
    if not alarm.get("Metrics"):
        return values[""]
    returned = next(query for query in alarm["Metrics"] if query.get("ReturnData", True))
    if "Expression" in returned:
        return evaluate_expression(returned["Expression"], values)
    return values[returned["Id"]]


def _read_metric(described: Mapping[str, Any]) -> Metric:
    dimensions = {d["Name"]: d["Value"] for d in described.get("Dimensions", ())}
    return Metric.of(described["Namespace"], described["MetricName"], dimensions)

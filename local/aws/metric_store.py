"""CloudWatch's memory: the values of each metric, by the minute in which they were measured."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MINUTE: Final = 60
_KEPT_SECONDS: Final = 6 * 3600


@dataclass(frozen=True)
class Metric:
    """A metric's namespace and name, with all of its dimensions and their values."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, namespace: str, name: str, dimensions: Mapping[str, str]) -> "Metric":
        """Make one."""
        return cls(namespace, name, frozenset(dimensions.items()))


class MetricStore:
    """The values of the last six hours; times are epoch seconds."""

    def __init__(self) -> None:
        """Begin empty."""
        self._minutes: dict[Metric, dict[int, list[float]]] = defaultdict(dict)

    def put(self, metric: Metric, at: float, values: Sequence[float]) -> None:
        """Add values, and forget what is too old."""
        minutes = self._minutes[metric]
        minute = int(at // MINUTE)
        minutes.setdefault(minute, []).extend(values)
        while (oldest := min(minutes)) < minute - _KEPT_SECONDS // MINUTE:
            del minutes[oldest]

    def compute(
        self, metric: Metric, statistic: str, *, start: float, seconds: float
    ) -> float | None:
        """Give a statistic over a time from the beginning of a minute; None without values."""
        minutes = self._minutes.get(metric, {})
        first = int(start // MINUTE)
        values = [
            value
            for minute in range(first, first + math.ceil(seconds / MINUTE))
            for value in minutes.get(minute, ())
        ]
        return compute_statistic(values, statistic) if values else None

    def find(self, namespace: str, name: str, dimensions: frozenset[str]) -> list[Metric]:
        """Give the metrics that have this very set of dimensions, in the order of their values."""
        found = [
            metric
            for metric in self._minutes
            if (metric.namespace, metric.name) == (namespace, name)
            and {key for key, _ in metric.dimensions} == dimensions
        ]
        return sorted(found, key=lambda metric: sorted(metric.dimensions))


def compute_statistic(values: Sequence[float], statistic: str) -> float:
    """Compute Sum, Average, Minimum, Maximum, SampleCount or a percentile such as p95."""
    match statistic:
        case "Sum":
            return math.fsum(values)
        case "Average":
            return math.fsum(values) / len(values)
        case "Minimum":
            return min(values)
        case "Maximum":
            return max(values)
        case "SampleCount":
            return float(len(values))
    if not statistic.startswith("p"):
        raise ValueError(f"{statistic} is no statistic")
    rank = math.ceil(len(values) * float(statistic[1:]) / 100)
    return sorted(values)[max(rank, 1) - 1]

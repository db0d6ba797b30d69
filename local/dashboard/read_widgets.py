"""A dashboard's metric widgets, read as CloudWatch reads them: each line's values over a time."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from local.aws.metric_math import evaluate_expression
from local.aws.metric_store import Metric, MetricStore

_SEARCH: Final = re.compile(
    r"SEARCH\('\{([^}]*)\} MetricName=\"(\w+)\"', '(\w+)', \d+\)", re.DOTALL
)


@dataclass(frozen=True)
class Span:
    """A time in epoch seconds, from the beginning of a minute."""

    start: float
    end: float

    def list_periods(self, seconds: float) -> list[float]:
        """Give the beginning of each period in it."""
        count = int((self.end - self.start) // seconds)
        return [self.start + number * seconds for number in range(count)]


@dataclass(frozen=True)
class Line:
    """A line of a graph: a value for each period, None where nothing was measured."""

    label: str
    values: Sequence[float | None]


def read_lines(properties: Mapping[str, Any], store: MetricStore, span: Span) -> list[Line]:
    """Give the visible lines of a widget; raises MetricMathError."""
    seconds = find_period(properties, span)
    periods = span.list_periods(seconds)
    lines: list[Line] = []
    by_id: dict[str, Sequence[float | None]] = {}
    for parts in properties["metrics"]:
        options = parts[-1] if isinstance(parts[-1], dict) else {}
        label = options.get("label", parts[1] if isinstance(parts[0], str) else "")
        if isinstance(parts[0], str):
            metric, statistic = _read_metric(parts), options.get("stat", properties["stat"])
            found = _compute(store, metric, statistic, periods, seconds)
        elif search := _SEARCH.fullmatch(options["expression"]):
            lines += _search(search, store, periods, seconds)
            continue
        else:
            found = [
                evaluate_expression(
                    options["expression"], {key: values[n] for key, values in by_id.items()}
                )
                for n in range(len(periods))
            ]
        if "id" in options:
            by_id[options["id"]] = found
        if options.get("visible", True):
            lines.append(Line(label, found))
    return lines


def find_period(properties: Mapping[str, Any], span: Span) -> float:
    """Give the seconds that each value of a widget is for."""
    return span.end - span.start if is_single(properties) else float(properties["period"])


def is_single(properties: Mapping[str, Any]) -> bool:
    """Whether a widget shows one number per line and no graph."""
    return bool(properties.get("view") == "singleValue")


def _search(
    search: re.Match[str], store: MetricStore, periods: Sequence[float], seconds: float
) -> Iterator[Line]:
    namespace, *names = search[1].split(",")
    for metric in store.find(namespace, search[2], frozenset(names)):
        values = _compute(store, metric, search[3], periods, seconds)
        yield Line(f"{dict(metric.dimensions)['workflow']} {search[2]}", values)


def _read_metric(parts: Sequence[Any]) -> Metric:
    namespace, name, *pairs = [part for part in parts if isinstance(part, str)]
    return Metric.of(namespace, name, dict(zip(pairs[::2], pairs[1::2], strict=True)))


def _compute(
    store: MetricStore,
    metric: Metric,
    statistic: str,
    periods: Sequence[float],
    seconds: float,
) -> list[float | None]:
    return [store.compute(metric, statistic, start=start, seconds=seconds) for start in periods]

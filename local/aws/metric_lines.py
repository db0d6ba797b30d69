"""Reads CloudWatch's embedded metric format out of the lines that functions log."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from local.aws.metric_store import Metric


@dataclass(frozen=True)
class Measurement:
    """Values of one metric, measured at an epoch second by the functions' real clock."""

    metric: Metric
    at: float
    values: Sequence[float]


def read_metric_line(line: str) -> Iterator[Measurement]:
    """Give what a line measures: nothing, if it is any other line."""
    if '"_aws"' not in line:
        return
    try:
        blob: Any = json.loads(line)
        directives = blob["_aws"]["CloudWatchMetrics"]
    except (ValueError, TypeError, KeyError):
        return  # somebody's text that only looks like one
    for directive in directives:
        for names in directive["Dimensions"]:
            dimensions = {name: str(blob[name]) for name in names}
            for definition in directive["Metrics"]:
                value = blob[definition["Name"]]
                yield Measurement(
                    Metric.of(directive["Namespace"], definition["Name"], dimensions),
                    blob["_aws"]["Timestamp"] / 1000,
                    value if isinstance(value, list) else [value],
                )

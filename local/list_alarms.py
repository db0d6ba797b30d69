"""The alarms of a stage: which ring, since when, and what each means."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
from rich.table import Table

from local.backend import choose_client_options
from local.find_backend import Target, opened_backend
from local.terminal import open_terminal


@dataclass(frozen=True)
class AlarmView:
    """An alarm as an operator looks at it."""

    name: str
    state: str
    since: datetime
    meaning: str


def run_alarms(target: Target) -> int:
    """Print every alarm of a stage; give 1 if one rings."""
    with opened_backend(target) as backend:
        ready = backend.ready
        options = choose_client_options(ready["endpoint"], ready["region"])
        alarms = list_alarms(boto3.client("cloudwatch", **options), ready["stage"])
    table = Table()
    for name in ("alarm", "state", "since", "meaning"):
        table.add_column(name, no_wrap=name == "alarm")
    for alarm in alarms:
        since = f"{alarm.since:%Y-%m-%d %H:%M:%S}"
        table.add_row(alarm.name, alarm.state, since, alarm.meaning)
    open_terminal().print(table)
    return int(any(alarm.state == "ALARM" for alarm in alarms))


def list_alarms(cloudwatch: Any, stage: str) -> Sequence[AlarmView]:
    """Every alarm of a stage, those that ring first."""
    pages = cloudwatch.get_paginator("describe_alarms").paginate(
        AlarmNamePrefix=f"{stage}-ml-service-"
    )
    alarms = [
        AlarmView(
            alarm["AlarmName"],
            alarm["StateValue"],
            alarm["StateUpdatedTimestamp"],
            alarm.get("AlarmDescription", ""),
        )
        for page in pages
        for alarm in page["MetricAlarms"]
    ]
    return sorted(alarms, key=lambda alarm: (alarm.state != "ALARM", alarm.name))

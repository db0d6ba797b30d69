"""Counts what jobs and idle minutes use, on local mode, for scripts/print_costs.py: `make count`.

The functions are the real ones, and so are their calls. How long a call takes is another matter:
the seconds are those of this machine, and the time that await_prompt holds on to a prompt is taken
from the prompt, since prompts take no time here.
"""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
import yaml

from local.aws.count_calls import CALLS_PATH
from local.aws.gateway import USAGE_PATH
from local.aws.read_template import read_template
from local.backend import Backend
from local.load_test import LoadOptions, choose_workflows, measure_load
from local.start_local_mode import running_local_mode
from local.terminal import open_terminal

ROOT = Path(__file__).parents[1]
COUNTS = ROOT / "costs" / "counts.yaml"
_SPEED = 10
_IDLE_MINUTES = 10
_JOBS = 46
"""Two of each workflow."""
_CONCURRENCY = 4
_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Usage:
    """What was used up to a moment; a difference of two is what was used between them."""

    minutes: float
    """Of the stage's clock."""
    amounts: Mapping[str, float]

    def since(self, earlier: "Usage") -> "Usage":
        """What has been used since an earlier moment."""
        names = self.amounts.keys() | earlier.amounts.keys()
        return Usage(
            self.minutes - earlier.minutes,
            {name: self.amounts.get(name, 0) - earlier.amounts.get(name, 0) for name in names},
        )

    def without_rest(self, rest: "Usage") -> Mapping[str, float]:
        """The amounts less what as many idle minutes would have used."""
        part = self.minutes / rest.minutes
        return {
            name: max(0.0, amount - part * rest.amounts.get(name, 0))
            for name, amount in self.amounts.items()
        }


def read_usage(backend: Backend) -> Usage:
    """Everything that functions and state machine have used so far."""
    endpoint = backend.ready["endpoint"]
    calls = requests.get(endpoint + CALLS_PATH, timeout=_ANSWER_SECONDS).json()
    functions = requests.get(endpoint + USAGE_PATH, timeout=_ANSWER_SECONDS).json()
    return Usage(
        time.monotonic() * _SPEED / 60,
        {
            **calls,
            "lambda calls": sum(usage["calls"] for usage in functions.values()),
            "lambda gb_seconds": sum(
                usage["seconds"] * usage["memory_mb"] / 1024 for usage in functions.values()
            ),
        },
    )


def count_transitions(backend: Backend) -> float:
    """State transitions of all executions so far: each state entered, and the start."""
    client = backend.stepfunctions
    machine = backend.ready["state_machine_arn"]
    kinds = Counter(
        event["type"]
        for page in client.get_paginator("list_executions").paginate(stateMachineArn=machine)
        for execution in page["executions"]
        for events in client.get_paginator("get_execution_history").paginate(
            executionArn=execution["executionArn"]
        )
        for event in events["events"]
    )
    entered = sum(count for kind, count in kinds.items() if kind.endswith("StateEntered"))
    return entered + kinds["ExecutionStarted"]


def measure_item_kilobytes(backend: Backend) -> float:
    """The mean size of a job's finished record: one unit is paid for each KB that is written."""
    sizes = [
        sum(len(str(key)) + len(str(value)) for key, value in item.items())
        for item in backend.job_table.scan()["Items"]
    ]
    return sum(sizes) / len(sizes) / 1024


def count_calls() -> Mapping[str, Any]:
    """Run local mode idle, then with jobs; gives what costs/counts.yaml holds."""
    console = open_terminal()
    with tempfile.TemporaryDirectory(prefix="ml-service-count-") as folder:
        options = ("--prompt-seconds", "0", "--speed", str(_SPEED))
        with running_local_mode(Path(folder), *options) as backend:
            warm_up = LoadOptions(jobs=_JOBS, concurrency=_CONCURRENCY)
            measure_load(backend, choose_workflows([]), warm_up, console)
            time.sleep(2 * 60 / _SPEED)
            before_rest = read_usage(backend)
            time.sleep(_IDLE_MINUTES * 60 / _SPEED)
            before_jobs = read_usage(backend)
            transitions = count_transitions(backend)
            load = measure_load(backend, choose_workflows([]), warm_up, console)
            # What follows a job, as the cleaning up of its instance, comes with the next minute.
            time.sleep(60 / _SPEED)
            rest = before_jobs.since(before_rest)
            jobs = read_usage(backend).since(before_jobs).without_rest(rest)
            transitions = count_transitions(backend) - transitions
            kilobytes = measure_item_kilobytes(backend)
    if load.summary.succeeded != _JOBS:
        raise SystemExit(f"only {load.summary.succeeded} of {_JOBS} jobs succeeded")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "jobs": _JOBS,
        "per_job": {
            "job record kilobytes": round(kilobytes, 2),
            "transitions": round(transitions / _JOBS, 2),
            **_round({name: amount / _JOBS for name, amount in jobs.items()}),
        },
        "per_idle_minute": _round(
            {name: amount / rest.minutes for name, amount in rest.amounts.items()}
        ),
        "alarms": len(alarms := _list_resources("AWS::CloudWatch::Alarm")),
        "alarm_metrics": sum(map(count_metrics, alarms)),
        "dashboards": len(_list_resources("AWS::CloudWatch::Dashboard")),
    }


def _round(amounts: Mapping[str, float]) -> Mapping[str, float]:
    return {name: round(amount, 2) for name, amount in sorted(amounts.items()) if amount >= 0.005}


def count_metrics(alarm: Mapping[str, Any]) -> int:
    """The metrics that an alarm looks at, each of which is paid for."""
    queries = alarm["Properties"].get("Metrics", [alarm])
    return sum("Expression" not in query for query in queries)


def _list_resources(kind: str) -> Sequence[Mapping[str, Any]]:
    resources = read_template(ROOT / "template.yaml")["Resources"]
    return [resource for resource in resources.values() if resource["Type"] == kind]


def main() -> int:
    """Count, and write costs/counts.yaml."""
    COUNTS.write_text(
        "# Written by `make count`; scripts/print_costs.py reads it.\n"
        + yaml.safe_dump(count_calls(), sort_keys=False),
        encoding="utf-8",
    )
    print(f"Wrote {COUNTS.relative_to(ROOT)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

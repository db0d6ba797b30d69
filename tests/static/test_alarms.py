"""Alarms, dashboard and saved queries speak of what the service really does."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.emitted_metrics import Metric, list_emitted_metrics
from tests.makers import FLEETS
from tests.static.deploy_template import Deployment
from tests.static.test_names import LOGICAL_PREFIXES

# What AWS itself measures, as its documentation of each service names it.
_AWS_METRICS = {
    ("AWS/Lambda", "Errors"): {"FunctionName"},
    ("AWS/Lambda", "Url5xxCount"): {"FunctionName"},
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): {"QueueName"},
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {"QueueName"},
    ("AWS/States", "ExecutionsFailed"): {"StateMachineArn"},
    ("AWS/States", "ExecutionsTimedOut"): {"StateMachineArn"},
}
# Emitted for who asks a question of his own, and so in no widget and no alarm.
_ONLY_FOR_QUESTIONS = {
    "Backlog": "the same as WaitingJobs, but as the scaler counted it",
    "HandOffsRefused": "the sender's fault, who is told",
    "JobsAdmitted": "in between; ActiveJobs tells",
    "JobsOrphaned": "they come to the dead-letter queue, which has an alarm",
    "JobsPutBack": "a race that was lost, and no harm",
    "JobsRepeated": "no harm",
    "MessagesForwarded": "in between; WaitingJobs tells",
    "MessagesRepeated": "no harm",
    "NoCapacity": "an admission that saw no ready instance, whether jobs wait or not",
    "RunningInstances": "ReadyInstances tells, and whether jobs may be placed there",
    "SweptCancelled": "mended, and in the log",
    "SweptClosed": "mended, and in the log",
    "SweptHandOffFailed": "HandOffsFailed, when the sweep meets it",
    "SweptHandedOff": "mended, and in the log",
    "SweptPublished": "mended, and in the log",
    "SweptRestarted": "mended, and in the log",
    "SweptSlotReturned": "mended, and in the log",
    "WarmUpSeconds": "part of how long an instance takes to start",
    "SCALE_IN_NOT_ALLOWED": "dev may not scale",
    "SCALE_OUT_NOT_ALLOWED": "dev may not scale",
    "SCALE_IN_POSTPONED": "done at the next tick",
    "SCALE_OUT_POSTPONED": "never happens: growing takes no time",
    "SCALE_IN_REFUSED": "an instance too many costs money, not jobs",
}
_SEARCH = re.compile(r"SEARCH\('\{([^}]*)\} MetricName=\"(\w+)\"', '\w+', \d+\)")


@pytest.fixture(scope="module")
def emitted() -> Mapping[Metric, list[Mapping[str, str]]]:
    found: dict[Metric, list[Mapping[str, str]]] = {}
    for metric, values, _ in list_emitted_metrics():
        found.setdefault(metric, []).append(values)
    return found


@pytest.fixture(scope="module")
def alarms(resources: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }


def list_alarm_metrics(alarm: Mapping[str, Any]) -> Iterator[tuple[Any, str, Mapping[str, Any]]]:
    """Namespace, name and dimensions of each metric that an alarm looks at."""
    metrics = [m["MetricStat"]["Metric"] for m in alarm.get("Metrics", ()) if "MetricStat" in m]
    for metric in metrics or [alarm]:
        dimensions = {d["Name"]: d["Value"] for d in metric["Dimensions"]}
        yield metric["Namespace"], metric["MetricName"], dimensions


def list_widget_metrics(dashboard: Mapping[str, Any]) -> Iterator[list[Any]]:
    for widget in dashboard["widgets"]:
        yield from widget["properties"].get("metrics", ())


def is_emitted(
    emitted: Mapping[Metric, list[Mapping[str, str]]], name: str, dimensions: Mapping[str, str]
) -> bool:
    values = emitted.get(Metric(name, frozenset(dimensions)), [])
    is_known = dimensions.get("fleet", "pulid") in FLEETS
    return is_known and any(v["service"] == dimensions["service"] for v in values)


def test_every_alarm_looks_at_what_is_measured(alarms: Mapping[str, Any], emitted: Any) -> None:
    """An alarm on a metric with a wrong name or dimension never rings, or always does."""
    for name, alarm in alarms.items():
        for namespace, metric, dimensions in list_alarm_metrics(alarm):
            if namespace == {"Fn::Sub": "${Stage}-ml-service"}:
                assert is_emitted(emitted, metric, dimensions), (name, metric)
            else:
                assert _AWS_METRICS[namespace, metric] == dimensions.keys(), name


def test_every_widget_shows_what_is_measured(deployment: Deployment, emitted: Any) -> None:
    """A metric with a wrong name or dimension is an empty graph that nobody notices."""
    for metric in list_widget_metrics(deployment.dashboard):
        if isinstance(metric[0], dict):
            continue
        namespace, name, *pairs = [part for part in metric if isinstance(part, str)]
        dimensions = dict(zip(pairs[::2], pairs[1::2], strict=True))
        if namespace == f"{deployment.stage}-ml-service":
            assert is_emitted(emitted, name, dimensions), metric
        else:
            assert _AWS_METRICS[namespace, name] == dimensions.keys(), metric


def test_every_search_finds_what_is_measured(deployment: Deployment, emitted: Any) -> None:
    """A search names the very set of dimensions, in any order."""
    expressions = [
        metric[0]["expression"]
        for metric in list_widget_metrics(deployment.dashboard)
        if isinstance(metric[0], dict)
    ]
    searches = [_SEARCH.fullmatch(text) for text in expressions if text.startswith("SEARCH")]

    assert len(searches) == 3
    for search in searches:
        assert search is not None
        namespace, *dimensions = search[1].split(",")
        assert namespace == f"{deployment.stage}-ml-service"
        assert Metric(search[2], frozenset(dimensions)) in emitted


def test_nothing_is_measured_for_nobody(
    alarms: Mapping[str, Any], deployment: Deployment, emitted: Any
) -> None:
    """Each metric is on the dashboard or in an alarm, or there is a reason why not."""
    shown = {m[1] for m in list_widget_metrics(deployment.dashboard) if isinstance(m[0], str)}
    text = json.dumps(deployment.dashboard).replace("\\", "")
    shown |= set(re.findall(r'MetricName="(\w+)"', text))
    shown |= {name for alarm in alarms.values() for _, name, _ in list_alarm_metrics(alarm)}
    names = {metric.name for metric in emitted}

    assert names - shown == _ONLY_FOR_QUESTIONS.keys()


def test_every_alarm_tells_its_beginning_and_its_end(alarms: Mapping[str, Any]) -> None:
    for alarm in alarms.values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlarmTopic"}]
        assert "TreatMissingData" in alarm


def test_every_alarm_leads_to_its_section_of_the_runbook(
    root: Path, alarms: Mapping[str, Any]
) -> None:
    """And each section is of an alarm, by its name."""
    sections = set(re.findall(r"^## (\S+)$", (root / "docs/runbook.md").read_text(), re.MULTILINE))
    named = set()
    for alarm in alarms.values():
        anchor = alarm["AlarmDescription"].partition("Runbook: docs/runbook.md#")[2]
        assert alarm["AlarmName"]["Fn::Sub"].endswith(f"-{anchor}")
        named.add(anchor)

    assert named == sections


def test_each_fleet_has_the_same_alarms(alarms: Mapping[str, Any]) -> None:
    """A template has no loops: they are written out, and a copied line may name another fleet."""
    by_fleet = {
        fleet: {
            name.removeprefix(prefix): json.loads(
                json.dumps(alarm).replace(prefix, "Fleet").replace(fleet, "FLEET")
            )
            for name, alarm in alarms.items()
            if name.startswith(prefix)
        }
        for fleet, prefix in LOGICAL_PREFIXES.items()
    }

    assert by_fleet["pulid"] == by_fleet["lip-sync"] == by_fleet["makeup"]
    assert len(by_fleet["pulid"]) == 8


def test_alarms_about_the_number_of_instances_ring_in_prod_only(
    alarms: Mapping[str, Any],
) -> None:
    """dev sees the same groups, and would say the same a second time."""
    quiet = {name for name, alarm in alarms.items() if "ActionsEnabled" in alarm}

    assert quiet == {
        f"{prefix}{kind}Alarm"
        for prefix in LOGICAL_PREFIXES.values()
        for kind in ("AtMaximum", "LaunchFailing")
    }
    for name in quiet:
        assert alarms[name]["ActionsEnabled"] == {"Fn::If": ["IsProd", True, False]}


def test_the_dashboard_shows_the_state_of_every_alarm(
    alarms: Mapping[str, Any], deployment: Deployment
) -> None:
    (widget,) = [w for w in deployment.dashboard["widgets"] if w["type"] == "alarm"]
    shown = [arn.partition(":alarm:")[2] for arn in widget["properties"]["alarms"]]

    assert shown == [
        alarm["AlarmName"]["Fn::Sub"].replace("${Stage}", deployment.stage)
        for alarm in alarms.values()
    ]


def test_widgets_lie_side_by_side_and_below_each_other(deployment: Deployment) -> None:
    """CloudWatch moves what overlaps, and the order of the questions would be lost."""
    taken: set[tuple[int, int]] = set()
    for widget in deployment.dashboard["widgets"]:
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_saved_queries_ask_for_lines_that_are_logged(
    root: Path, resources: Mapping[str, Any]
) -> None:
    """A message that was reworded would leave a query without an answer."""
    source = "\n".join(path.read_text() for path in (root / "functions").glob("*/app.py"))
    texts = [
        resource["Properties"]["QueryString"]
        for resource in resources.values()
        if resource["Type"] == "AWS::Logs::QueryDefinition"
    ]
    asked = {
        message
        for text in texts
        for line in text.splitlines()
        if "message" in line and "filter" in line
        for message in re.findall(r'"([a-z][a-z ]+)"', line)
    }

    assert len(texts) == 5
    assert asked == {"job finished", "fleet scaled", "message refused", "message returned"}
    for message in asked:
        assert f'"{message}"' in source or message.startswith("message ")
    assert 'logger.info(f"message {outcome.status.lower()}"' in source


def test_the_alarm_topic_lets_this_accounts_alarms_ring(resources: Mapping[str, Any]) -> None:
    """Another account's alarm must not, and the key of alias/aws/sns would silence them all."""
    _, permission = resources["AlarmTopicPolicy"]["Properties"]["PolicyDocument"]["Statement"]

    assert permission["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert permission["Condition"] == {
        "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    }
    assert "KmsMasterKeyId" not in resources["AlarmTopic"]["Properties"]

"""CloudWatch's part: gathers what is measured, and lets alarms ring, in virtual time."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from local.aws.alarm_rules import AlarmState, find_period, judge_alarm
from local.aws.clients import AwsClients
from local.aws.metric_lines import read_metric_line
from local.aws.metric_math import MetricMathError
from local.aws.metric_store import MINUTE, Metric, MetricStore
from local.aws.virtual_clock import VirtualClock, format_time

_log = logging.getLogger(__name__)

# A clock that runs fast must not let the watching be all that is done.
_LEAST_SECONDS: Final = 1.0
_ACTIONS: Final[Mapping[AlarmState, str]] = {
    "ALARM": "AlarmActions",
    "OK": "OKActions",
    "INSUFFICIENT_DATA": "InsufficientDataActions",
}
_SUBJECT_LIMIT: Final = 100  # SNS's
_QUEUE_METRICS: Final = {
    "ApproximateAgeOfOldestMessage": "ApproximateAgeOfOldestMessage",
    "ApproximateNumberOfMessages": "ApproximateNumberOfMessagesVisible",
    "ApproximateNumberOfMessagesNotVisible": "ApproximateNumberOfMessagesNotVisible",
}


class AlarmWatch:
    """Reads the functions' logs, measures the queues and judges the alarms, once a minute.

    An alarm that changes tells it to the topics of its actions, as CloudWatch does.
    """

    def __init__(self, clients: AwsClients, clock: VirtualClock, log_folder: Path) -> None:
        """Take the folder of the functions' logs, one file for each."""
        self.store = MetricStore()
        self._clients = clients
        self._clock = clock
        self._log_folder = log_folder
        self._offsets: dict[Path, int] = {}
        self._url_answers: deque[tuple[str, float, bool]] = deque()
        self._began = clock.now()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with the present minute."""
        self._began = self._clock.now()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def take_url_answer(self, function_name: str, status: int) -> None:
        """Count an answer of a function's URL."""
        self._url_answers.append((function_name, self._clock.now(), status >= 500))

    async def _run(self) -> None:
        while True:
            left = MINUTE - self._clock.now() % MINUTE
            await asyncio.sleep(max(self._clock.real_seconds(left), _LEAST_SECONDS))
            try:
                await asyncio.to_thread(self.look)
            except (BotoCoreError, ClientError, MetricMathError):
                _log.exception("The alarms cannot be judged")

    def look(self) -> None:
        """Gather what is new, and judge every alarm for the minutes until now; blocking."""
        now = self._clock.now()
        self._read_logs()
        self._count_url_answers()
        self._measure_queues(now - MINUTE)
        this_minute = now - now % MINUTE
        for alarm in self._clients.cloudwatch.describe_alarms()["MetricAlarms"]:
            if this_minute - self._began < alarm["EvaluationPeriods"] * find_period(alarm):
                continue  # it would take the time before the beginning for missing
            before: AlarmState = alarm["StateValue"]
            after = judge_alarm(alarm, self.store, now=this_minute, state=before)
            if after != before:
                self._change(alarm, after, at=this_minute)

    def _change(self, alarm: Mapping[str, Any], state: AlarmState, *, at: float) -> None:
        reason = f"{alarm['EvaluationPeriods']} periods until {format_time(at)}"
        self._clients.cloudwatch.set_alarm_state(
            AlarmName=alarm["AlarmName"], StateValue=state, StateReason=reason
        )
        if not alarm["ActionsEnabled"]:
            return
        message = {
            "AlarmName": alarm["AlarmName"],
            "AlarmDescription": alarm.get("AlarmDescription"),
            "NewStateValue": state,
            "NewStateReason": reason,
            "StateChangeTime": format_time(at),
            "OldStateValue": alarm["StateValue"],
        }
        for topic in alarm.get(_ACTIONS[state], ()):
            self._clients.sns.publish(
                TopicArn=topic,
                Subject=f"{state}: {alarm['AlarmName']}"[:_SUBJECT_LIMIT],
                Message=json.dumps(message),
            )

    def _count_url_answers(self) -> None:
        while self._url_answers:
            name, at, failed = self._url_answers.popleft()
            metric = Metric.of("AWS/Lambda", "Url5xxCount", {"FunctionName": name})
            self.store.put(metric, at, [float(failed)])

    def _read_logs(self) -> None:
        for path in sorted(self._log_folder.glob("*.log")):
            with path.open("rb") as log:
                log.seek(self._offsets.get(path, 0))
                for line in log:
                    if not line.endswith(b"\n"):
                        break  # the rest of it is still to come
                    self._offsets[path] = self._offsets.get(path, 0) + len(line)
                    self._take(line.decode("utf-8", "replace"))

    def _take(self, line: str) -> None:
        for measured in read_metric_line(line):
            # Functions stamp their metrics by the wall's clock, as they do on AWS.
            at = self._clock.at(measured.at)
            self.store.put(measured.metric, at, measured.values)

    def _measure_queues(self, at: float) -> None:
        # In the minute that is over: AWS measures all the time, and tells of a minute at its end.
        sqs: Any = self._clients.sqs
        for url in sqs.list_queues().get("QueueUrls", ()):
            found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_QUEUE_METRICS))
            dimensions = {"QueueName": url.rpartition("/")[2]}
            for attribute, name in _QUEUE_METRICS.items():
                value = float(found["Attributes"].get(attribute, 0))
                if name == "ApproximateAgeOfOldestMessage":
                    value *= self._clock.rate
                self.store.put(Metric.of("AWS/SQS", name, dimensions), at, [value])

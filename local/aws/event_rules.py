"""EventBridge's part: fires rate() rules in virtual time, brings events to the rules they match."""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from local.aws.clients import AwsClients
from local.aws.lambda_runtime import LambdaRuntime
from local.aws.virtual_clock import VirtualClock, format_time

_log = logging.getLogger(__name__)

_RATE: Final = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_UNIT_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86400}
ACCOUNT_ID: Final = "123456789012"  # moto's


@dataclass(frozen=True)
class _Target:
    function_name: str
    constant_input: str | None

    def payload(self, event: Mapping[str, Any]) -> bytes:
        return (self.constant_input or json.dumps(event)).encode()


@dataclass(frozen=True)
class _Rule:
    name: str
    arn: str
    pattern: str | None
    period_seconds: int | None
    targets: tuple[_Target, ...]


class EventRules:
    """The rules of the default bus whose targets are functions.

    They are read when events start; a schedule that is disabled later rests until it is enabled.
    """

    def __init__(self, clients: AwsClients, runtime: LambdaRuntime, clock: VirtualClock) -> None:
        """Take where the rules stand and who runs their targets."""
        self._clients = clients
        self._runtime = runtime
        self._clock = clock
        self._rules: list[_Rule] = []
        self._tickers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the rules and start the schedules; each fires once at once."""
        self._rules = await asyncio.to_thread(self._read_rules)
        loop = asyncio.get_running_loop()
        self._tickers = [
            loop.create_task(self._tick(rule, rule.period_seconds))
            for rule in self._rules
            if rule.period_seconds is not None
        ]

    async def stop(self) -> None:
        """Stop the schedules."""
        for ticker in self._tickers:
            ticker.cancel()
        await asyncio.gather(*self._tickers, return_exceptions=True)

    def publish(
        self, source: str, detail_type: str, resources: Sequence[str], detail: Mapping[str, Any]
    ) -> None:
        """Bring an event of an AWS service to every rule that matches it."""
        event = self._event(source, detail_type, resources, detail, self._clock.now())
        for rule in self._rules:
            if rule.pattern is not None and matches_pattern(rule.pattern, event):
                self._deliver(rule, event)

    def _event(
        self,
        source: str,
        detail_type: str,
        resources: Sequence[str],
        detail: Mapping[str, Any],
        at: float,
    ) -> dict[str, Any]:
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": ACCOUNT_ID,
            "time": format_time(at),
            "region": self._clients.region,
            "resources": list(resources),
            "detail": dict(detail),
        }

    def _deliver(self, rule: _Rule, event: Mapping[str, Any]) -> None:
        for target in rule.targets:
            self._runtime.invoke_later(target.function_name, target.payload(event))

    async def _tick(self, rule: _Rule, period_seconds: int) -> None:
        """Fire at every whole period from now; one that cannot be kept is left out, not made up."""
        began = time.monotonic()
        virtual_began = self._clock.now()
        real_period = self._clock.real_seconds(period_seconds)
        count = 0
        while True:
            at = virtual_began + count * period_seconds
            if await asyncio.to_thread(self._is_enabled, rule):
                event = self._event("aws.events", "Scheduled Event", [rule.arn], {}, at)
                self._deliver(rule, event)
            passed = (time.monotonic() - began) / real_period
            count = max(count, int(passed)) + 1
            await asyncio.sleep(began + count * real_period - time.monotonic())

    def _is_enabled(self, rule: _Rule) -> bool:
        events = self._clients.events
        try:
            return events.describe_rule(Name=rule.name)["State"] != "DISABLED"
        except events.exceptions.ResourceNotFoundException:
            return False  # it was deleted

    def _read_rules(self) -> list[_Rule]:
        rules = []
        for page in self._clients.events.get_paginator("list_rules").paginate():
            for rule in page["Rules"]:
                if rule.get("State") == "DISABLED":
                    continue
                schedule = rule.get("ScheduleExpression")
                period = read_period(schedule) if schedule else None
                if schedule and period is None:
                    _log.warning("A schedule does not fire here: %s", schedule)
                answer = self._clients.events.list_targets_by_rule(Rule=rule["Name"])
                rules.append(
                    _Rule(
                        name=rule["Name"],
                        arn=rule["Arn"],
                        pattern=rule.get("EventPattern"),
                        period_seconds=period,
                        targets=tuple(
                            _Target(target["Arn"].rpartition(":")[2], target.get("Input"))
                            for target in answer["Targets"]
                            if _is_delivered(rule["Name"], target)
                        ),
                    )
                )
        return rules


def _is_delivered(rule_name: str, target: Mapping[str, Any]) -> bool:
    if ":lambda:" in target["Arn"] and not {"InputPath", "InputTransformer"} & target.keys():
        return True
    _log.warning("Rule %s: target %s is not served here", rule_name, target["Arn"])
    return False


def read_period(schedule: str) -> int | None:
    """Give the period of a rate() expression in seconds, None for any other schedule."""
    match = _RATE.fullmatch(schedule)
    return int(match[1]) * _UNIT_SECONDS[match[2]] if match else None


def matches_pattern(pattern: str, event: Mapping[str, Any]) -> bool:
    """Tell whether an event has what an EventBridge pattern (JSON) asks for."""
    return bool(_load_pattern(pattern).matches_event(event))


@lru_cache
def _load_pattern(pattern: str) -> Any:
    # Imported late: it takes a second, in which the moto process can start.
    from moto.events.models import EventPattern

    return EventPattern.load(pattern)

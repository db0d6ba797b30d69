"""Runs of the real state machine's definition, one step at a time and by the test's clock."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from tests.fakes import FakeClock
from tests.faults.call_points import Crash
from tests.makers import PROJECT

Task = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@cache
def read_definition() -> Mapping[str, Any]:
    text = (PROJECT / "statemachines" / "run_job.asl.json").read_text()
    definition: Mapping[str, Any] = json.loads(text)
    return definition


@dataclass
class Execution:
    """One execution; what it knows of the language is what the definition uses."""

    job_id: str
    run: int
    tasks: Mapping[str, Task]
    """By the name of their state."""
    clock: FakeClock
    status: str = "RUNNING"
    state: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    wakes_at: datetime | None = None
    _retries: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.data = {"job_id": self.job_id, "run": self.run}
        self._enter(read_definition()["StartAt"])

    @property
    def is_awake(self) -> bool:
        return self.status == "RUNNING" and (
            self.wakes_at is None or self.wakes_at <= self.clock.now()
        )

    def step(self) -> None:
        """Go through one state, or try its task once."""
        self.wakes_at = None
        state = read_definition()["States"][self.state]
        match state["Type"]:
            case "Task":
                self._try_task(state)
            case "Choice":
                (chosen,) = [
                    choice["Next"]
                    for choice in state["Choices"]
                    if self._read(choice["Variable"]) == choice["StringEquals"]
                ]
                self._enter(chosen)
            case "Wait":
                seconds = self._read(state["SecondsPath"])
                self.wakes_at = self.clock.now() + timedelta(seconds=seconds)
                self._enter(state["Next"])
            case other:
                raise AssertionError(f"a state of type {other}")

    def _try_task(self, state: Mapping[str, Any]) -> None:
        try:
            result = dict(self.tasks[self.state](self.data))
        except Crash:
            self._fail(state, "Lambda.Unknown", "")
        except Exception as error:  # noqa: BLE001  (as Step Functions does)
            name = type(error).__name__
            cause = json.dumps({"errorMessage": str(error), "errorType": name})
            self._fail(state, name, cause)
        else:
            self.data[_name_of(state["ResultPath"])] = result
            if state.get("End"):
                self.status = "SUCCEEDED"
            else:
                self._enter(state["Next"])

    def _fail(self, state: Mapping[str, Any], error: str, cause: str) -> None:
        def matches(rule: Mapping[str, Any]) -> bool:
            return error in rule["ErrorEquals"] or "States.ALL" in rule["ErrorEquals"]

        number, retrier = next((n, rule) for n, rule in enumerate(state["Retry"]) if matches(rule))
        if self._retries[number] < retrier["MaxAttempts"]:
            pause = retrier["IntervalSeconds"] * retrier["BackoffRate"] ** self._retries[number]
            pause = min(pause, retrier.get("MaxDelaySeconds", pause))
            self.wakes_at = self.clock.now() + timedelta(seconds=pause)
            self._retries[number] += 1
            return
        catcher = next((rule for rule in state.get("Catch", []) if matches(rule)), None)
        if catcher is None:
            self.status = "FAILED"
            return
        self.data[_name_of(catcher["ResultPath"])] = {"Error": error, "Cause": cause}
        self._enter(catcher["Next"])

    def _enter(self, state: str) -> None:
        self.state = state
        self._retries.clear()

    def _read(self, path: str) -> Any:
        value: Any = self.data
        for name in path.removeprefix("$.").split("."):
            value = value[name]
        return value


def _name_of(path: str) -> str:
    return path.removeprefix("$.")

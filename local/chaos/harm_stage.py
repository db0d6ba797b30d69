"""Harms a local mode at random, repeatably: instances, functions' processes, messages."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event

import requests

from local.aws.gateway import WORKER_KILLS_PATH
from local.chaos.watch_stage import StageWatch
from local.comfyui.admin_routes import ADMIN_PREFIX
from local.comfyui.faults import FaultKind, Occasion
from local.load_test import LoadRun
from local.sample_jobs import SampleJob

_LOOK_SECONDS = 1.0


class Strike(StrEnum):
    """What is done to the stage."""

    TERMINATE = "instance terminated in EC2"
    REPLACE = "instance replaced by its group"
    RESTART = "server killed and restarted"
    STALL = "server stalled"
    ZOMBIE = "server turned into a zombie"
    LOSE_ANSWER = "answers to POST /prompt lost"
    KILL_PROCESS = "function's process killed in a call"
    REPEAT_MESSAGE = "backend's message delivered twice"
    REPEAT_TASK = "task queue's message delivered twice"


_WEIGHTS: Mapping[Strike, float] = {
    Strike.TERMINATE: 0.5,
    Strike.REPLACE: 0.5,
    Strike.RESTART: 2,
    Strike.STALL: 2,
    Strike.ZOMBIE: 1,
    Strike.LOSE_ANSWER: 3,
    Strike.KILL_PROCESS: 8,
    Strike.REPEAT_MESSAGE: 6,
    Strike.REPEAT_TASK: 6,
}
_ZOMBIES = (FaultKind.HANG, FaultKind.WORKER_DEATH, FaultKind.BLACK_HOLE, FaultKind.EXIT)
"""None of these recovers by itself: somebody has to replace the instance."""
_LOST_ANSWERS = (
    FaultKind.RESET_BEFORE_ACCEPT,
    FaultKind.RESET_AFTER_ACCEPT,
    FaultKind.ERROR_AFTER_ACCEPT,
    FaultKind.SLOW_POST,
)


@dataclass(frozen=True)
class HarmOptions:
    """How hard a stage is harmed, in real seconds."""

    seed: int
    seconds: float
    """For so long; then every zombie is replaced, and all is left in peace."""
    spared: frozenset[str] = frozenset()
    """Functions whose processes are not killed, without the stage's name."""
    pause_seconds: float = 1.5
    """Between two strikes, on average."""
    zombie_seconds: tuple[float, float] = (10.0, 25.0)
    """After so long somebody replaces a zombie."""
    away_seconds: float = 4.0
    """Longest absence of a server that restarts, and longest stall."""


@dataclass
class Saboteur:
    """Strikes while its block runs; what it did stays to be read."""

    watch: StageWatch
    run: LoadRun
    options: HarmOptions
    strikes: Counter[Strike] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    """Processes killed in a call, by function."""
    harmed: set[str] = field(default_factory=set)
    """Ids of the instances with which something was wrong for a time."""

    def __post_init__(self) -> None:
        self._dice = random.Random(self.options.seed)
        self._zombies: dict[str, float] = {}
        functions = self.watch.aws.functions.list_functions()["Functions"]
        self._functions = sorted(
            function["FunctionName"]
            for function in functions
            if function["FunctionName"].partition("ml-service-")[2] not in self.options.spared
        )
        self._ways: Mapping[Strike, Callable[[], bool]] = {
            Strike.TERMINATE: lambda: self._strike_instance(self._terminate),
            Strike.REPLACE: lambda: self._strike_instance(self._replace),
            Strike.RESTART: lambda: self._strike_instance(self._restart),
            Strike.STALL: lambda: self._strike_instance(self._stall),
            Strike.ZOMBIE: lambda: self._strike_instance(self._make_zombie),
            Strike.LOSE_ANSWER: lambda: self._strike_instance(self._lose_answer),
            Strike.KILL_PROCESS: self._kill_process,
            Strike.REPEAT_MESSAGE: self._repeat_message,
            Strike.REPEAT_TASK: self._repeat_task,
        }

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Strike for the time that was asked for, at the longest until the end of the block."""
        end = Event()
        with ThreadPoolExecutor(1) as thread:
            working = thread.submit(self._work, end)
            try:
                yield
            finally:
                end.set()
        working.result()

    def _work(self, end: Event) -> None:
        began = time.monotonic()
        next_strike = began
        while not end.is_set() and time.monotonic() < began + self.options.seconds:
            self.watch.look()
            for instance_id in [i for i, due in self._zombies.items() if due < time.monotonic()]:
                self._end_zombie(instance_id)
            while next_strike <= time.monotonic():
                next_strike += self._dice.expovariate(1 / self.options.pause_seconds)
                self._strike()
            end.wait(min(_LOOK_SECONDS, max(0.0, next_strike - time.monotonic())))
        self._leave_in_peace()
        while not end.wait(_LOOK_SECONDS):
            self.watch.look()

    def _strike(self) -> None:
        """Strike once; one that finds nothing to strike at is not counted."""
        (strike,) = self._dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        if self._ways[strike]():
            self.strikes[strike] += 1

    def _leave_in_peace(self) -> None:
        self.watch.look()
        for instance_id in list(self._zombies):
            self._end_zombie(instance_id)
        for instance_id in self.watch.present:
            if self.watch.look_at(instance_id):
                with suppress(requests.RequestException):  # It has gone since that look.
                    self.watch.call(instance_id, "DELETE", f"{ADMIN_PREFIX}/faults")

    def _strike_instance(self, harm: Callable[[str], None]) -> bool:
        able = [i for i in sorted(self.watch.present) if i not in self._zombies]
        self._dice.shuffle(able)
        # One that boots, or is away already, cannot be harmed.
        victim = next((i for i in able if self.watch.look_at(i)), None)
        if victim is None:
            return False
        self.harmed.add(victim)
        try:
            harm(victim)
        except requests.RequestException:
            return False  # It has gone since that look.
        return True

    def _terminate(self, instance_id: str) -> None:
        self.watch.aws.ec2.terminate_instances(InstanceIds=[instance_id])
        del self.watch.present[instance_id]

    def _replace(self, instance_id: str) -> None:
        self.watch.aws.autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=instance_id, ShouldDecrementDesiredCapacity=False
        )
        del self.watch.present[instance_id]

    def _restart(self, instance_id: str) -> None:
        on = self._dice.choice([Occasion.REQUEST, Occasion.PROMPT, Occasion.POST])
        away = self._dice.uniform(0, self.options.away_seconds)
        self._switch_on(instance_id, FaultKind.RESTART, on=on, seconds=away)

    def _stall(self, instance_id: str) -> None:
        seconds = self._dice.uniform(0, self.options.away_seconds)
        self._switch_on(instance_id, FaultKind.STALL, seconds=seconds)

    def _lose_answer(self, instance_id: str) -> None:
        self._switch_on(instance_id, self._dice.choice(_LOST_ANSWERS), times=2)

    def _make_zombie(self, instance_id: str) -> None:
        self._switch_on(instance_id, self._dice.choice(_ZOMBIES))
        self._zombies[instance_id] = time.monotonic() + self._dice.uniform(
            *self.options.zombie_seconds
        )

    def _end_zombie(self, instance_id: str) -> None:
        """Do what a person would, who finds an instance that does nothing."""
        del self._zombies[instance_id]
        if instance_id in self.watch.present:
            self.watch.look_at(instance_id)
            self._replace(instance_id)

    def _switch_on(self, instance_id: str, kind: FaultKind, **more: object) -> None:
        self.watch.call(instance_id, "POST", f"{ADMIN_PREFIX}/faults", {"kind": kind.value, **more})

    def _kill_process(self) -> bool:
        names = self._dice.sample(self._functions, len(self._functions))
        url = self.watch.aws.endpoint + WORKER_KILLS_PATH
        answer = requests.post(url, json={"functions": names}, timeout=10)
        answer.raise_for_status()
        killed = answer.json()["killed"]
        if killed is not None:
            self.killed[killed] += 1
        return killed is not None

    def _repeat_message(self) -> bool:
        job = self._choose_sent_job()
        if job is None:
            return False
        self.watch.backend.send(job.body)
        return True

    def _repeat_task(self) -> bool:
        job = self._choose_sent_job()
        if job is None:
            return False
        if self.watch.backend.find_record(job.job_id, job.job_id) is None:
            return False  # it has not come to its task queue yet
        url = self.watch.fleets[job.workflow.fleet].task_queue_url
        self.watch.aws.sqs.send_message(QueueUrl=url, MessageBody=job.body)
        return True

    def _choose_sent_job(self) -> SampleJob | None:
        sent: Sequence[SampleJob] = self.run.jobs[: len(self.run.sent_at)]
        return self._dice.choice(sent) if sent else None

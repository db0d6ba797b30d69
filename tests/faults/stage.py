"""The whole service in memory: every service, the real state machine, queues and instances.

A stage is driven one invocation at a time, so that a test decides what happens between any two, and
through ``strike`` also within one.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial
from itertools import count
from typing import Any

from local.sample_media import make_image
from ml_service.domain.errors import ExecutionsThrottledError
from ml_service.domain.fleets import Group, GroupMember
from ml_service.domain.jobs import Job
from ml_service.domain.prompts import make_prompt_id
from ml_service.ports import QueuedMessage
from ml_service.services.admit_jobs import AdmitJobs
from ml_service.services.await_prompt import AwaitPrompt
from ml_service.services.cancel_prompt import CancelPrompt
from ml_service.services.choose_instance import WAIT_SECONDS, ChooseInstance
from ml_service.services.collect_outputs import CollectOutputs
from ml_service.services.dispatch_jobs import DispatchJobs, DispatchStatus
from ml_service.services.finish_job import FinishJob, StepError
from ml_service.services.refresh_registry import RefreshRegistry
from ml_service.services.remove_instances import RemoveInstances
from ml_service.services.scale_fleets import ScaleFleets
from ml_service.services.submit_prompt import SubmitPrompt
from ml_service.services.sweep_jobs import SweepJobs
from tests.fakes import (
    FakeClock,
    InMemoryAdmission,
    InMemoryConversionQueues,
    InMemoryFleetStore,
    InMemoryInstancePool,
    InMemoryJobStore,
    InMemoryMediaStore,
    InMemoryPromptCanceller,
    InMemoryRefusedMessages,
    InMemoryReplyTopic,
)
from tests.faults.call_points import CallPoints, Crash
from tests.faults.executions import Execution
from tests.faults.simulated_instances import SimulatedInstance, SimulatedInstances
from tests.faults.timed_queue import TimedQueue
from tests.makers import (
    BUCKET,
    CATALOG,
    FLEETS,
    make_body,
    make_finish_job,
    make_payload,
)

SLOTS = 2
MAX_INSTANCES = 3
MINUTE = timedelta(minutes=1)
PICTURE = make_image(color=(9, 9, 9), size=(8, 8))
MAX_OUTLIVING = timedelta(minutes=3)
"""A cancel that was lost is repeated by the first tick that is a minute after the job's end."""


@cache  # what is checked after every step would take most of the time
def _find_prompt_id(job_id: str, attempt: int) -> str:
    return make_prompt_id(stage="dev", job_id=job_id, attempt=attempt)


@cache
def _read_partial_name(reply: str) -> str:
    name: str = json.loads(json.loads(reply)["data"])["PartialName"]
    return name


class Stage:
    """One fleet of a stage, with instances whose prompts run one after the other.

    It never has fewer of them than at first, unless a ``minimum`` says so.
    """

    job_store: type[InMemoryJobStore] = InMemoryJobStore
    fleet_store: type[InMemoryFleetStore] = InMemoryFleetStore

    def __init__(
        self,
        *,
        workflow: str = "flux-prompt",
        instances: int = 2,
        minimum: int = 0,
        slots: int = SLOTS,
        prompt_seconds: float = 3.0,
        scaling: Mapping[str, Any] | None = None,
    ) -> None:
        self.workflow = workflow
        self.fleet = CATALOG.workflow(workflow).fleet
        self.slots = slots
        self.prompt_seconds = prompt_seconds
        self.fleets = {
            self.fleet: FLEETS[self.fleet].model_copy(
                update={"slots_per_instance": slots, "scaling": scaling or {}}
            )
        }
        self.clock = FakeClock()
        self.input_queue = TimedQueue(self.clock, timedelta(seconds=180))
        self.task_queue = TimedQueue(self.clock)
        self.jobs = self.job_store()
        self.store = self.fleet_store()
        self.refused = InMemoryRefusedMessages()
        self.topic = InMemoryReplyTopic()
        self.admission = InMemoryAdmission()
        self.canceller = InMemoryPromptCanceller()
        self.conversions = InMemoryConversionQueues()
        self.media = InMemoryMediaStore()
        self.media.inputs = {
            (BUCKET, key): PICTURE for key in ("photos/face.png", "photos/lips.png")
        }
        self.instances = SimulatedInstances()
        self.runs: list[str] = []
        self.group_name = self.fleets[self.fleet].group_name
        group = Group(instances, minimum or instances, MAX_INSTANCES, [])
        self.pool = InMemoryInstancePool({self.group_name: group})
        self.executions: dict[tuple[str, int], Execution] = {}
        self.is_throttled = False
        """Whether Step Functions starts nothing."""
        self.posted: dict[str, str] = {}
        """PartialName by job id of every message that was put into the input queue."""
        self.strikes: dict[type, CallPoints] = {}
        """What happens to the next invocation of a service."""
        self.errors: list[BaseException] = []
        """What functions raised."""
        self._numbers = count(1)
        self._ticks = count()
        self.fill_group()
        self.tick()

    # What happens from outside

    def post(self, **changes: Any) -> str:
        """Put a message into the input queue; returns its job id."""
        number = next(self._numbers)
        job_id, partial_name = f"job-{number}", f"0e8a3f0a-6f5c-4c1b-9e57-{number:012}"
        payload = make_payload(self.workflow, PartialName=partial_name)
        body = make_body(self.workflow, MessageId=job_id, payload=payload, **changes)
        self.input_queue.send([QueuedMessage(f"sqs-{number}", body)])
        self.posted[job_id] = partial_name
        return job_id

    def fill_group(self) -> None:
        """Launch and terminate as Auto Scaling does to reach the desired capacity."""
        group = self.pool.groups[self.group_name]
        members = list(group.members)
        while len(members) > group.desired:
            gone = members.pop(0)
            self.instances.by_address[gone.address].is_alive = False
        while len(members) < group.desired:
            number = len(self.instances.by_address) + 1
            instance = SimulatedInstance(
                f"i-{number}", f"10.0.0.{number}", self.clock, self.runs, self.prompt_seconds
            )
            self.instances.by_address[instance.address] = instance
            members.append(
                GroupMember(
                    instance.instance_id, self.clock.now(), instance.address, in_service=True
                )
            )
        self.pool.groups[self.group_name] = replace(group, members=members)

    def terminate(self, address: str) -> None:
        """An instance is gone, for good."""
        self.instances.by_address[address].is_alive = False
        group = self.pool.groups[self.group_name]
        members = [m for m in group.members if m.address != address]
        self.pool.groups[self.group_name] = replace(group, members=members)

    def find_instance(self, job_id: str) -> SimulatedInstance | None:
        """The instance on which a job has its place."""
        return self.instances.by_address.get(self.jobs.get(job_id).address)

    def present(self) -> list[SimulatedInstance]:
        """The instances of the group."""
        members = self.pool.groups[self.group_name].members
        return [self.instances.by_address[m.address] for m in members]

    # Invocations

    def dispatch(self) -> None:
        messages = self.input_queue.receive(10)
        if not messages:
            return
        by_id = {message.message_id: message for message in messages}
        service = self._make(
            DispatchJobs(
                CATALOG,
                self.jobs,
                {self.fleet: self.task_queue},
                self.refused,
                self.topic,
                self.admission,
                frozenset({BUCKET}),
                hand_off_buckets=frozenset(),
                hand_off_queue_arns=frozenset(),
            )
        )
        report = self._invoke(
            lambda: service.dispatch(list(messages), now=self.clock.now(), new_seed=lambda: 7)
        )
        for outcome in report.outcomes if report else ():
            if outcome.status is not DispatchStatus.RETURNED:
                self.input_queue.delete([by_id[outcome.message_id].receipt])

    def admit(self) -> Any:
        self.admission.kicked.clear()
        service = self._make(
            AdmitJobs(
                self.fleets,
                {self.fleet: self.task_queue},
                self.jobs,
                self.store,
                self._registry(),
                self,
                self.admission,
                self.clock,
            )
        )
        return self._invoke(lambda: service.admit(self.fleet))

    def sweep(self) -> None:
        finish = self._finish_job()
        service = self._make(
            SweepJobs(self.fleets, self.jobs, self.store, self, finish, self.canceller)
        )
        self._invoke(lambda: service.sweep(self.clock.now()))

    def make_scaler(self) -> ScaleFleets:
        return self._make(
            ScaleFleets(
                self.fleets,
                {self.fleet: self.task_queue},
                self.store,
                self.pool,
                self._registry(),
                RemoveInstances(self.store, self.pool, self.instances, self.clock),
                self.clock,
                scaling_enabled=True,
                reports_unhealthy=True,
            )
        )

    def scale(self) -> None:
        service, now = self.make_scaler(), self.clock.now()
        self._invoke(lambda: service.scale(tick=now))

    def tick(self) -> None:
        """What happens every minute."""
        self.scale()
        self.fill_group()
        self.sweep()
        self.admit()

    def cancel(self) -> None:
        """The cancels that were asked for."""
        asked, self.canceller.asked = self.canceller.asked, []
        for job_id in asked:
            service = self._make(CancelPrompt(self.jobs, self.store, self.instances))
            now = self.clock.now()
            self._invoke(partial(service.cancel, job_id, now=now))

    def step(self, execution: Execution) -> None:
        execution.step()
        if execution.status in ("FAILED", "ABORTED"):
            self.tell_end(execution)

    def stop(self, execution: Execution) -> None:
        """An operator stops an execution."""
        execution.status = "ABORTED"
        self.tell_end(execution)

    def tell_end(self, execution: Execution) -> None:
        """The cleanup rule's event, which ``finish_job`` gets."""
        service = self._make(self._finish_job())
        error = StepError(execution.status)
        self._invoke(
            lambda: service.finish(
                execution.job_id, run=execution.run, error=error, now=self.clock.now()
            )
        )

    def start(self, job_id: str, run: int) -> bool:
        """The port JobRunner."""
        if self.is_throttled:
            raise ExecutionsThrottledError("ThrottlingException")
        execution = self.executions.get((job_id, run))
        if execution is not None:
            return execution.status == "RUNNING"
        self.executions[job_id, run] = Execution(
            job_id,
            run,
            {
                "Choose Instance": self._choose,
                "Submit Prompt": self._submit,
                "Await Prompt": self._await,
                "Collect Outputs": self._collect,
                "Finish Job": self._finish,
            },
            self.clock,
        )
        return True

    def is_running(self, job_id: str, run: int) -> bool:
        """The port JobRunner."""
        execution = self.executions.get((job_id, run))
        return execution is not None and execution.status == "RUNNING"

    def warm_up(self, fleet: str, key: str) -> None:
        """The port InstanceWarmer: here a warm-up takes no time."""
        self.store.end_warm_up(fleet, key, at=self.clock.now())

    def awake(self) -> list[Execution]:
        return [execution for execution in self.executions.values() if execution.is_awake]

    # The end

    def settle(self, *, ticks: int = 8) -> None:
        """Let everything happen that is due, until nothing is left or so many ticks are over."""
        next_tick = self.clock.now()
        while ticks and not self.is_quiet():
            self.dispatch()
            if self.admission.kicked:
                self.admit()
            for execution in self.awake():
                self.step(execution)
            self.cancel()
            self.check_always()
            if self.clock.now() >= next_tick:
                self.tick()
                ticks -= 1
                next_tick = self.clock.now() + MINUTE
            if not self.awake():
                self.clock.sleep(5)

    def is_quiet(self) -> bool:
        return (
            not self.input_queue.entries
            and not self.task_queue.entries
            and all(job.due_at is None for job in self.jobs.jobs.values())
            and all(e.status != "RUNNING" for e in self.executions.values())
            and not any(i.jobs for i in self.store.list_instances(self.fleet))
        )

    def check_always(self) -> None:
        """What holds at every moment, while ticks come."""
        self._check_prompts(MAX_OUTLIVING)
        self.check_slots_and_answers()

    def check_slots_and_answers(self) -> None:
        """What holds at every moment."""
        for instance in self.store.list_instances(self.fleet):
            assert len(instance.jobs) <= self.slots, "more jobs on an instance than slots"
        group = self.pool.groups[self.group_name]
        assert group.minimum <= group.desired <= group.maximum
        for job_id, replies in self.replies().items():
            assert len(set(replies)) == 1, f"{job_id} has two different answers"

    def _check_prompts(self, outliving: timedelta) -> None:
        now = self.clock.now()
        owners = {
            _find_prompt_id(job.job_id, attempt): job
            for job in self.jobs.jobs.values()
            if job.closed_at is not None and now - job.closed_at >= outliving
            for attempt in range(1, job.attempt + 1)
        }
        for instance in self.present():
            instance.run()
            if instance.is_alive and not instance.is_silent and not instance.hangs:
                left = owners.keys() & set(instance.queue)
                assert not left, "a prompt has outlived its job"

    def check_end(self, *, losses: int | None = None) -> None:
        """What holds once all is over; ``losses`` is how many runs may have been in vain."""
        self.check_always()
        replies = self.replies()
        for job in self.posted_jobs():
            job_id, partial_name = job.job_id, job.partial_name
            assert job.state.is_final, f"{job_id} is {job.state}"
            assert replies.get(partial_name), f"{job_id} has no answer"
            assert json.loads(job.reply) in map(json.loads, replies[partial_name])
            runs = self.count_runs(job)
            allowed = len(job.lost_on) if losses is None else losses
            assert runs <= 1 + allowed, f"{job_id} ran {runs} times"
        assert self.is_quiet(), "something is left to be done"
        self._check_prompts(timedelta(0))  # nobody will look after it any more

    def posted_jobs(self) -> list[Job]:
        """The records of all messages."""
        by_name = {job.partial_name: job for job in self.jobs.jobs.values()}
        return [by_name[partial_name] for partial_name in self.posted.values()]

    def replies(self) -> Mapping[str, list[str]]:
        """The answers by PartialName."""
        found: dict[str, list[str]] = defaultdict(list)
        for reply in self.topic.replies:
            found[_read_partial_name(reply)].append(reply)
        return found

    def count_runs(self, job: Job) -> int:
        """How often prompts of a job have run to their end.

        A prompt that ran, was wiped out by a restart and then posted once more under its id, as
        nobody had heard that the first POST was taken, counts once: nothing could tell of it.
        """
        runs = Counter(self.runs)
        wiped = Counter(i for it in self.instances.by_address.values() for i in it.forgotten)
        ids = [_find_prompt_id(job.job_id, attempt) for attempt in range(1, job.attempt + 1)]
        return sum(runs[i] - min(wiped[i], runs[i] - 1) for i in ids if runs[i])

    # The steps, as their handlers call them

    def _choose(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        service = self._make(ChooseInstance(self.fleets, self.jobs, self.store, self.canceller))
        choice = service.choose(data["job_id"], now=self.clock.now())
        return {"status": choice.status, "wait_seconds": WAIT_SECONDS}

    def _submit(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        service = SubmitPrompt(
            "dev", CATALOG, self.jobs, self.store, self.media, self.instances, self.clock
        )
        self._make(service).submit(data["job_id"])
        return {"status": "SUBMITTED"}

    def _await(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        service = self._make(
            AwaitPrompt(self.fleets, self.jobs, self.store, self.instances, self.clock)
        )
        awaited = service.await_prompt(data["job_id"])
        return {"status": awaited.status, "wait_seconds": awaited.wait_seconds}

    def _collect(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        service = CollectOutputs(self.jobs, self.media, self.instances, None, self.clock)
        self._make(service).collect(data["job_id"])
        return {"status": "COLLECTED"}

    def _finish(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        error = data.get("error")
        job = self._make(self._finish_job()).finish(
            data["job_id"],
            run=data["run"],
            error=StepError(error["Error"], error["Cause"]) if error else None,
            now=self.clock.now(),
        )
        return {"status": job.state}

    def _finish_job(self) -> FinishJob:
        return make_finish_job(self)

    def _registry(self) -> RefreshRegistry:
        return RefreshRegistry(self.store, self.pool, self.instances, self)

    def _make(self, service: Any) -> Any:
        points = self.strikes.pop(type(service), None)
        return points.watch(service) if points else service

    def _invoke(self, call: Any) -> Any:
        """Run a function; what it raises is its own affair, as it is with Lambda."""
        try:
            return call()
        except (Crash, Exception) as error:  # noqa: BLE001
            self.errors.append(error)
            return None

"""Ports in memory for the services' tests; contract tests hold them to the ports' promises."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from ml_service.domain.errors import (
    HandOffFailedError,
    InputNotFoundError,
    InstanceSilentError,
    InstanceUnreachableError,
    JobChangedError,
    JobNotFoundError,
    OutputMissingError,
    ScalingRefusedError,
)
from ml_service.domain.fleets import (
    ADMISSION_LIFETIME,
    QUARANTINE_FAULTS,
    Group,
    GroupMember,
    Instance,
)
from ml_service.domain.inputs import MediaSource
from ml_service.domain.jobs import Job, JobState, JobSummary
from ml_service.domain.prompts import Progress, Prompt, PromptState
from ml_service.domain.results import OutputFile
from ml_service.domain.scaling import ScalerState, ScalingDecision
from ml_service.domain.stage_counts import OpenJob
from ml_service.domain.warm_ups import WARM_UP_LIFETIME
from ml_service.ports import DeadLetter, MediaStream, QueuedMessage

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@dataclass
class FakeClock:
    """A clock that moves only when somebody waits."""

    time: datetime = NOON

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def wait(self, seconds: float) -> None:
        self.sleep(seconds)


class InMemoryJobQueue:
    def __init__(self) -> None:
        self.visible: list[QueuedMessage] = []
        self.hidden: dict[str, QueuedMessage] = {}
        self.refuses: set[str] = set()
        self._receipts = 0

    def send(self, messages: Sequence[QueuedMessage]) -> Sequence[str]:
        self.visible += [m for m in messages if m.message_id not in self.refuses]
        return [m.message_id for m in messages if m.message_id in self.refuses]

    def receive(self, limit: int) -> Sequence[QueuedMessage]:
        taken, self.visible = self.visible[:limit], self.visible[limit:]
        received = []
        for message in taken:
            self._receipts += 1
            message = replace(message, receipt=str(self._receipts))
            self.hidden[message.receipt] = message
            received.append(message)
        return received

    def delete(self, receipts: Sequence[str]) -> None:
        for receipt in receipts:
            self.hidden.pop(receipt, None)

    def put_back(self, message: QueuedMessage) -> None:
        self.visible.append(self.hidden.pop(message.receipt))

    def count_waiting(self) -> int:
        return len(self.visible)


@dataclass
class InMemoryRefusedMessages:
    kept: list[tuple[str, str]] = field(default_factory=list)

    def keep(self, body: str, *, code: str, sentence: str) -> None:
        self.kept.append((body, code))


class InMemoryJobStore:
    def __init__(self, *jobs: Job) -> None:
        self.jobs = {job.job_id: job for job in jobs}

    def add(self, job: Job) -> bool:
        if job.job_id in self.jobs:
            return False
        self.jobs[job.job_id] = job
        return True

    def get(self, job_id: str) -> Job:
        try:
            return self.jobs[job_id]
        except KeyError:
            raise JobNotFoundError(job_id) from None

    def save(self, job: Job) -> None:
        if self.get(job.job_id).version != job.version - 1:
            raise JobChangedError(job.job_id)
        self.jobs[job.job_id] = job

    def list_due(self, now: datetime, *, limit: int) -> Sequence[str]:
        due = [(job.due_at, job.job_id) for job in self.jobs.values() if job.due_at]
        return [job_id for due_at, job_id in sorted(due) if due_at <= now][:limit]

    def list_open(self) -> Sequence[OpenJob]:
        return [
            OpenJob(job.fleet, job.workflow, job.state, job.late_after)
            for job in self.jobs.values()
            if job.due_at
        ]

    def list_latest(
        self, fleet: str, state: JobState, *, before: str = "", limit: int
    ) -> Sequence[JobSummary]:
        found = [
            job
            for job in self.jobs.values()
            if (job.fleet, job.state) == (fleet, state) and not (before and job.turn >= before)
        ]
        return [
            JobSummary(
                job_id=job.job_id,
                state=job.state,
                workflow=job.workflow,
                fleet=job.fleet,
                received_at=job.received_at,
                closed_at=job.closed_at,
            )
            for job in sorted(found, key=lambda job: job.turn, reverse=True)
        ][:limit]

    def count_earlier(self, job: Job) -> int:
        return len(self.list_latest(job.fleet, job.state, before=job.turn, limit=1_000_000))


class InMemoryFleetStore:
    def __init__(self, fleet: str = "", *instances: Instance) -> None:
        self.instances = {(fleet, i.key): i for i in instances}
        self.scalers: dict[str, ScalerState] = {}
        self.waiting: set[tuple[str, str]] = set()
        self.admissions: dict[str, datetime] = {}
        self.look_again: set[str] = set()
        self.decisions: list[tuple[str, ScalingDecision, str]] = []

    def list_instances(self, fleet: str) -> Sequence[Instance]:
        return [i for (name, _), i in self.instances.items() if name == fleet]

    def put_instance(
        self, fleet: str, member: GroupMember, *, reading: int | None, at: datetime
    ) -> None:
        known = self.instances.get((fleet, member.key))
        if known is not None and known.read_at > at:
            return
        self.instances[fleet, member.key] = Instance(
            key=member.key,
            instance_id=member.instance_id,
            address=member.address,
            in_service=member.in_service,
            takes_jobs=known.takes_jobs if known else True,
            reading=reading,
            read_at=at,
            jobs=known.jobs if known else frozenset(),
            placed_at=known.placed_at if known else None,
            faults=known.faults if known else 0,
            quarantined_at=known.quarantined_at if known else None,
            stalled_at=known.stalled_at if known else None,
            warmed_at=known.warmed_at if known else None,
            warming_since=known.warming_since if known else None,
            warm_up_tries=known.warm_up_tries if known else 0,
            warm_up_fault=known.warm_up_fault if known else "",
        )

    def remove_instance(self, fleet: str, key: str) -> None:
        self.instances.pop((fleet, key), None)

    def take_slot(self, fleet: str, key: str, job_id: str, *, slots: int, at: datetime) -> bool:
        instance = self.instances.get((fleet, key))
        if instance is None or not instance.takes_jobs:
            return False
        if len(instance.jobs) >= slots and job_id not in instance.jobs:
            return False
        self.instances[fleet, key] = replace(instance, jobs=instance.jobs | {job_id}, placed_at=at)
        return True

    def release_slot(self, fleet: str, key: str, job_id: str, *, worked: bool = False) -> None:
        if (fleet, key) in self.instances:
            instance = self.instances[fleet, key]
            if worked:
                instance = replace(instance, faults=0, stalled_at=None)
            self.instances[fleet, key] = replace(instance, jobs=instance.jobs - {job_id})

    def wait_for_slot(self, fleet: str, job_id: str) -> None:
        self.waiting.add((fleet, job_id))

    def stop_waiting(self, fleet: str, job_id: str) -> None:
        self.waiting.discard((fleet, job_id))

    def list_waiting(self, fleet: str) -> Set[str]:
        return {job_id for name, job_id in self.waiting if name == fleet}

    def record_fault(self, fleet: str, key: str, at: datetime) -> bool:
        if (fleet, key) not in self.instances:
            return False
        instance = self.instances[fleet, key]
        instance = replace(instance, faults=instance.faults + 1)
        quarantined = instance.faults >= QUARANTINE_FAULTS and instance.quarantined_at is None
        if quarantined:
            instance = replace(instance, quarantined_at=at)
        self.instances[fleet, key] = instance
        return quarantined

    def lift_quarantine(self, fleet: str, key: str) -> None:
        if (fleet, key) in self.instances:
            self.instances[fleet, key] = replace(
                self.instances[fleet, key], faults=QUARANTINE_FAULTS - 1, quarantined_at=None
            )

    def record_reading(self, fleet: str, key: str, reading: int | None, at: datetime) -> None:
        if (fleet, key) in self.instances and self.instances[fleet, key].read_at <= at:
            self.instances[fleet, key] = replace(
                self.instances[fleet, key], reading=reading, read_at=at
            )

    def begin_admission(self, fleet: str, *, at: datetime) -> bool:
        if fleet in self.admissions and self.admissions[fleet] > at:
            self.look_again.add(fleet)
            return False
        self.admissions[fleet] = at + ADMISSION_LIFETIME
        self.look_again.discard(fleet)
        return True

    def end_admission(self, fleet: str) -> bool:
        if fleet in self.look_again:
            self.look_again.remove(fleet)
            return False
        self.admissions.pop(fleet, None)
        return True

    def start_draining(self, fleet: str, key: str) -> bool:
        instance = self.instances.get((fleet, key))
        if instance is None or not instance.takes_jobs or instance.jobs:
            return False
        self.instances[fleet, key] = replace(instance, takes_jobs=False)
        return True

    def stop_draining(self, fleet: str, key: str) -> None:
        if (fleet, key) in self.instances:
            self.instances[fleet, key] = replace(self.instances[fleet, key], takes_jobs=True)

    def record_stall(self, fleet: str, key: str, at: datetime) -> None:
        if (fleet, key) in self.instances:
            self.instances[fleet, key] = replace(self.instances[fleet, key], stalled_at=at)

    def begin_warm_up(self, fleet: str, key: str, *, at: datetime) -> bool:
        instance = self.instances.get((fleet, key))
        if instance is None or instance.is_warm:
            return False
        since = instance.warming_since
        if since is not None and since + WARM_UP_LIFETIME > at:
            return False
        self.instances[fleet, key] = replace(instance, warming_since=at)
        return True

    def end_warm_up(self, fleet: str, key: str, *, at: datetime, fault: str = "") -> None:
        if (fleet, key) in self.instances:
            self.instances[fleet, key] = replace(
                self.instances[fleet, key], warmed_at=at, warming_since=None, warm_up_fault=fault
            )

    def abandon_warm_up(self, fleet: str, key: str, *, fault: str = "") -> None:
        if (fleet, key) in self.instances:
            instance = self.instances[fleet, key]
            self.instances[fleet, key] = replace(
                instance,
                warming_since=None,
                warm_up_fault=fault,
                warm_up_tries=instance.warm_up_tries + bool(fault),
            )

    def load_scaler(self, fleet: str) -> ScalerState:
        return self.scalers.get(fleet, ScalerState())

    def save_scaler(self, fleet: str, state: ScalerState, *, last_tick: datetime | None) -> bool:
        if self.load_scaler(fleet).last_tick != last_tick:
            return False
        self.scalers[fleet] = state
        return True

    def add_decision(self, fleet: str, decision: ScalingDecision, *, outcome: str) -> None:
        self.decisions.append((fleet, decision, outcome))


@dataclass
class InMemoryInstancePool:
    groups: dict[str, Group]
    refuses: bool = False
    is_slow: bool = False
    """Accepts a lower capacity, and terminates nothing yet."""
    terminated: list[str] = field(default_factory=list)
    crashes: BaseException | None = None
    """Raised instead of setting a capacity."""
    breaks: set[str] = field(default_factory=set)
    refreshing: set[str] = field(default_factory=set)
    unhealthy: list[str] = field(default_factory=list)

    def describe(self, group_name: str) -> Group:
        if group_name in self.breaks:
            raise RuntimeError("describe failed")
        return self.groups[group_name]

    def set_desired(self, group_name: str, desired: int) -> None:
        if self.crashes is not None:
            raise self.crashes
        if self.refuses:
            raise ScalingRefusedError("ScalingActivityInProgress")
        group = self.groups[group_name]
        self.groups[group_name] = replace(group, desired=desired)
        self._terminate(group_name)

    def is_refreshing(self, group_name: str) -> bool:
        return group_name in self.refreshing

    def report_unhealthy(self, instance_id: str) -> None:
        self.unhealthy.append(instance_id)

    def set_protection(
        self, group_name: str, instance_ids: Sequence[str], *, is_protected: bool
    ) -> None:
        group = self.groups[group_name]
        members = [
            replace(m, is_protected=is_protected) if m.instance_id in instance_ids else m
            for m in group.members
        ]
        self.groups[group_name] = replace(group, members=members)

    def _terminate(self, group_name: str) -> None:
        """As Auto Scaling does: the first that it may, whatever runs there."""
        group = self.groups[group_name]
        while len(group.members) > group.desired:
            victim = next((m for m in group.members if not m.is_protected), None)
            if victim is None or self.is_slow:
                return
            self.terminated.append(victim.key)
            group = replace(group, members=[m for m in group.members if m is not victim])
            self.groups[group_name] = group


@dataclass
class InMemoryInstanceProbe:
    readings: dict[str, int | None] = field(default_factory=dict)

    def count_prompts(self, addresses: Sequence[str]) -> Mapping[str, int | None]:
        return {address: self.readings.get(address) for address in addresses}


@dataclass
class InMemoryInstanceWarmer:
    asked: list[tuple[str, str]] = field(default_factory=list)

    def warm_up(self, fleet: str, key: str) -> None:
        self.asked.append((fleet, key))


@dataclass
class InMemoryComfyUI:
    """An instance whose prompts are moved on by the test."""

    prompts: dict[str, Prompt] = field(default_factory=dict)
    graphs: dict[str, Mapping[str, object]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    reachable: bool = True
    silent_looks: int = 0
    """How many looks are not answered."""
    news: list[Callable[[], None]] = field(default_factory=list)
    """What happens during each wait for news, one after the other."""
    clock: FakeClock | None = None
    progress: Progress | None = None
    """What a watch hears of the running prompt."""

    def count_prompts(self) -> int:
        self._check()
        return sum(
            p.state in (PromptState.PENDING, PromptState.RUNNING) for p in self.prompts.values()
        )

    def upload(self, name: str, content: MediaStream) -> str:
        self._check()
        self.uploads[name] = content.content.read()
        return name

    def submit(self, prompt_id: str, graph: Mapping[str, object]) -> None:
        self._check()
        assert prompt_id not in self.graphs, "posted twice"
        self.graphs[prompt_id] = graph
        self.prompts[prompt_id] = Prompt(PromptState.PENDING)

    def find(self, prompt_id: str) -> Prompt:
        self._check()
        if self.silent_looks:
            self.silent_looks -= 1
            raise InstanceSilentError("ReadTimeout")
        return self.prompts.get(prompt_id, Prompt(PromptState.UNKNOWN))

    def drop_copies(self, prompt_id: str) -> None:
        self._check()
        self.prompts[prompt_id] = replace(self.prompts[prompt_id], copies=1)

    @contextmanager
    def watch(self, prompt_id: str) -> Iterator["InMemoryPromptWatch"]:
        yield InMemoryPromptWatch(self)

    @contextmanager
    def open_output(self, file: OutputFile) -> Iterator[BinaryIO]:
        self._check()
        if file.filename not in self.files:
            raise OutputMissingError(file.filename)
        yield io.BytesIO(self.files[file.filename])

    def cancel(self, prompt_id: str, *, seconds: float) -> bool:
        self._check()
        self.cancelled.append(prompt_id)
        self.prompts.pop(prompt_id, None)
        return True

    def withdraw(self, prompt_id: str) -> bool:
        self._check()
        if self.find(prompt_id).state is PromptState.PENDING:
            del self.prompts[prompt_id]
        return prompt_id not in self.prompts

    def forget(self, prompt_id: str) -> None:
        self._check()
        self.prompts.pop(prompt_id, None)

    def _check(self) -> None:
        if not self.reachable:
            raise InstanceUnreachableError("refused")


@dataclass
class InMemoryPromptWatch:
    comfyui: InMemoryComfyUI

    @property
    def progress(self) -> Progress | None:
        return self.comfyui.progress

    def wait(self, seconds: float) -> None:
        if self.comfyui.clock is not None:
            self.comfyui.clock.sleep(seconds)
        if self.comfyui.news:
            self.comfyui.news.pop(0)()


@dataclass
class InMemoryConnector:
    instances: dict[str, InMemoryComfyUI]

    def connect(self, address: str) -> InMemoryComfyUI:
        return self.instances[address]


@dataclass
class InMemoryMediaStore:
    inputs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    results: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    copies: dict[tuple[str, str], bytes] = field(default_factory=dict)
    forbidden_buckets: set[str] = field(default_factory=set)

    @contextmanager
    def open_input(self, source: MediaSource) -> Iterator[MediaStream]:
        if (source.bucket, source.key) not in self.inputs:
            raise InputNotFoundError(f"The input {source.input} does not exist.")
        content = self.inputs[source.bucket, source.key]
        yield MediaStream(io.BytesIO(content), len(content))

    def put_result(self, key: str, content: BinaryIO, *, content_type: str) -> None:
        self.results[key] = (content.read(), content_type)

    def copy_result(self, key: str, *, to_bucket: str, to_key: str) -> None:
        if key not in self.results or to_bucket in self.forbidden_buckets:
            raise HandOffFailedError("AccessDenied")
        self.copies[to_bucket, to_key] = self.results[key][0]


@dataclass
class InMemoryResultStore:
    """Results by key, in the order in which they were stored."""

    files: dict[str, bytes] = field(default_factory=dict)

    def sign(self, key: str, *, lifetime: timedelta) -> str:
        return f"https://results/{key}?seconds={lifetime.total_seconds():.0f}"

    @contextmanager
    def open_result(self, key: str) -> Iterator[MediaStream]:
        if key not in self.files:
            raise OutputMissingError("A result is not in its bucket any more.")
        yield MediaStream(io.BytesIO(self.files[key]), len(self.files[key]))

    def list_keys(self, prefix: str) -> Sequence[str]:
        return [key for key in reversed(self.files) if key.startswith(prefix)]


@dataclass
class InMemoryConversionQueues:
    sent: list[tuple[str, str]] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)

    def send(self, queue_arn: str, messages: Sequence[str]) -> None:
        if queue_arn in self.closed:
            raise HandOffFailedError("NonExistentQueue")
        self.sent += [(queue_arn, message) for message in messages]


@dataclass
class InMemoryReplyTopic:
    replies: list[str] = field(default_factory=list)

    def publish(self, reply: str) -> None:
        self.replies.append(reply)


@dataclass
class InMemoryJobRunner:
    started: list[tuple[str, int]] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)

    def start(self, job_id: str, run: int) -> bool:
        if job_id in self.ended:
            return False
        if (job_id, run) not in self.started:
            self.started.append((job_id, run))
        return True

    def is_running(self, job_id: str, run: int) -> bool:
        return (job_id, run) in self.started and job_id not in self.ended


@dataclass
class InMemoryJobStopper:
    stopped: list[tuple[str, int]] = field(default_factory=list)
    then: Callable[[str, int], object] | None = None
    """What stopping a job leads to."""

    def stop(self, job_id: str, run: int) -> None:
        self.stopped.append((job_id, run))
        if self.then is not None:
            self.then(job_id, run)


class InMemoryDeadLetterQueue:
    def __init__(self, *letters: DeadLetter) -> None:
        self.visible = list(letters)
        self.held: dict[str, DeadLetter] = {}
        self._receipts = 0

    def count_hidden(self) -> int:
        return len(self.held)

    def hold(self) -> Sequence[DeadLetter]:
        taken, self.visible = self.visible[:10], self.visible[10:]
        held = []
        for letter in taken:
            self._receipts += 1
            message = replace(letter.message, receipt=str(self._receipts))
            held.append(replace(letter, message=message))
        self.held |= {letter.message.receipt: letter for letter in held}
        return held

    def release(self, receipts: Sequence[str]) -> None:
        self.visible += [self.held.pop(r) for r in receipts if r in self.held]

    def delete(self, receipt: str) -> None:
        del self.held[receipt]

    def let_holds_run_out(self) -> None:
        self.release(list(self.held))


@dataclass
class InMemoryAdmission:
    kicked: list[str] = field(default_factory=list)
    breaks: bool = False

    def kick(self, fleet: str) -> None:
        if self.breaks:
            raise RuntimeError("throttled")
        self.kicked.append(fleet)


@dataclass
class InMemoryPromptCanceller:
    asked: list[str] = field(default_factory=list)

    def cancel_abandoned(self, job_id: str) -> None:
        self.asked.append(job_id)

"""One fleet, simulated event by event, with the deployed policy, placement and admission.

What is left out: submission, collection and moving a prompt take no time, every instance answers
every check, and nothing fails. An instance runs its prompts one after the other, in the order they
came.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import partial

from local.simulation.traces import Arrival
from ml_service.domain.errors import MlServiceError
from ml_service.domain.fleets import (
    Instance,
    choose_victims,
    count_free_slots,
    find_shorter_queue,
    rank_instances,
)
from ml_service.domain.scaling import (
    FleetObservation,
    ScalerState,
    ScalingAction,
    decide_scaling,
)
from ml_service.domain.scaling_policy import ScalingPolicy
from ml_service.services.await_prompt import MOVE_SECONDS

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
"""The moment 0 of every simulation, for schedules by day of the week."""
REMOVAL_SECONDS = 30.0
"""From the decision until an instance goes: the victim protocol waits so long before its second
look, and Auto Scaling without it takes about as long to terminate one."""


@dataclass(frozen=True)
class SimulationOptions:
    """What is simulated besides the trace."""

    policy: ScalingPolicy
    minimum: int = 1
    maximum: int = 3
    startup_seconds: float = 240.0
    """From the call that launches an instance until it takes jobs."""
    protects_jobs: bool = True
    """The victim protocol; without it Auto Scaling chooses which instance goes."""


@dataclass(frozen=True)
class ServedJob:
    """A job that was run to its end."""

    arrived: float
    started: float
    ended: float

    @property
    def wait(self) -> float:
        """Seconds from its arrival to the start of the run that ended well."""
        return self.started - self.arrived


@dataclass(frozen=True)
class FleetSample:
    """What a check saw."""

    at: float
    waiting: int
    """Jobs that do not run yet, in the task queue and on instances."""
    ready: int
    desired: int


@dataclass(frozen=True)
class ScalingCall:
    """A change of desired capacity that was asked for."""

    at: float
    action: ScalingAction
    desired: int
    reason: str


@dataclass
class SimulationRecord:
    """What happened in one simulation; all times are seconds from its begin."""

    end: float
    """Of the trace, or of the last job if that is later."""
    jobs: list[ServedJob] = field(default_factory=list)
    samples: list[FleetSample] = field(default_factory=list)
    calls: list[ScalingCall] = field(default_factory=list)
    lifetimes: list[tuple[float, float]] = field(default_factory=list)
    """Of each instance, from its launch to its end."""
    moved: int = 0
    """Prompts that left an instance's queue for a shorter one."""
    killed: int = 0
    """Jobs that were running on an instance when it went; they ran once more."""


class SimulationError(MlServiceError):
    """When a simulation would never come to its end."""


def simulate_fleet(trace: Sequence[Arrival], options: SimulationOptions) -> SimulationRecord:
    """Run a trace to the end of its last job; raises SimulationError."""
    if options.minimum == 0 and not options.policy.counts_backlog:
        raise SimulationError(
            "with a minimum of 0 a policy that does not count the backlog never starts an instance"
        )
    return _Simulation(trace, options).run()


class _Order(IntEnum):
    """Events of one moment happen in this order."""

    FINISH = 0
    REMOVE = 1
    READY = 2
    ARRIVE = 3
    CHECK = 4
    MOVE = 5


@dataclass
class _Server:
    """An instance with its prompts; the first of them runs."""

    view: Instance
    """As the fleet table would know it."""
    launched: float
    prompts: deque[int] = field(default_factory=deque)
    began: float = 0.0
    """When the first prompt began to run."""

    def drop(self, job: int) -> None:
        """Forget a job that has ended here, or goes elsewhere."""
        self.prompts.remove(job)
        self.view = replace(self.view, reading=len(self.prompts), jobs=self.view.jobs - {str(job)})


class _Simulation:
    def __init__(self, trace: Sequence[Arrival], options: SimulationOptions) -> None:
        self._trace = trace
        self._options = options
        self._policy = options.policy
        self._slots = options.policy.slots
        self._now = 0.0
        self._events: list[tuple[float, _Order, int, Callable[[], None]]] = []
        self._event_count = 0
        self._queue: deque[int] = deque()
        self._servers: dict[str, _Server] = {}
        """Those in service, by key."""
        self._launched: dict[str, float] = {}
        """When those were launched that are not in service yet."""
        self._launch_count = 0
        self._is_removing = False
        self._desired = options.minimum
        self._state = ScalerState()
        self._record = SimulationRecord(end=trace[-1].seconds)

    def run(self) -> SimulationRecord:
        self._launch(self._options.minimum, ready_in=0.0)
        for job, arrival in enumerate(self._trace):
            self._plan(arrival.seconds, _Order.ARRIVE, partial(self._arrive, job))
        self._plan(0.0, _Order.CHECK, self._check)
        while len(self._record.jobs) < len(self._trace):
            self._now, _, _, happen = heapq.heappop(self._events)
            happen()
        return self._close()

    def _plan(self, at: float, order: _Order, happen: Callable[[], None]) -> None:
        self._event_count += 1
        heapq.heappush(self._events, (at, order, self._event_count, happen))

    def _clock(self) -> datetime:
        return MONDAY + timedelta(seconds=self._now)

    # Jobs

    def _arrive(self, job: int) -> None:
        self._queue.append(job)
        self._admit()

    def _admit(self) -> None:
        while self._queue:
            views = [server.view for server in self._servers.values()]
            if not count_free_slots(views, slots=self._slots):
                return
            server = self._servers[rank_instances(views, slots=self._slots)[0].key]
            self._place(self._queue.popleft(), server)

    def _place(self, job: int, server: _Server) -> None:
        server.view = server.view.with_job(str(job), self._clock())
        server.prompts.append(job)
        if len(server.prompts) == 1:
            self._begin(server)
        elif self._policy.moves_waiting:
            self._plan_move(job, server)

    def _plan_move(self, job: int, server: _Server) -> None:
        self._plan(self._now + MOVE_SECONDS, _Order.MOVE, partial(self._move, job, server))

    def _move(self, job: int, server: _Server) -> None:
        """Let a job that still waits look for a shorter queue, as it does every so many seconds."""
        if self._servers.get(server.view.key) is not server or job not in server.prompts:
            return
        ahead = server.prompts.index(job)
        if ahead == 0:
            return
        place = None
        if not self._queue:  # what waits there would have taken any free slot
            views = (other.view for other in self._servers.values())
            avoid = (server.view.key,)
            place = find_shorter_queue(views, slots=self._slots, ahead=ahead, avoid=avoid)
        if place is None:
            self._plan_move(job, server)
            return
        server.drop(job)
        self._place(job, self._servers[place.key])
        self._record.moved += 1

    def _begin(self, server: _Server) -> None:
        server.began = self._now
        ends = self._now + self._trace[server.prompts[0]].service_seconds
        self._plan(ends, _Order.FINISH, partial(self._finish, server))

    def _finish(self, server: _Server) -> None:
        if self._servers.get(server.view.key) is not server:
            return  # it was terminated with the prompt that would have ended now
        job = server.prompts[0]
        self._record.jobs.append(
            ServedJob(arrived=self._trace[job].seconds, started=server.began, ended=self._now)
        )
        server.drop(job)
        if server.prompts:
            self._begin(server)
        self._admit()

    # Instances

    def _launch(self, count: int, *, ready_in: float) -> None:
        for _ in range(count):
            self._launch_count += 1
            key = f"i-{self._launch_count:06}"
            self._launched[key] = self._now
            self._plan(self._now + ready_in, _Order.READY, partial(self._serve, key))

    def _serve(self, key: str) -> None:
        view = Instance(
            key=key,
            instance_id=key,
            address=key,
            in_service=True,
            takes_jobs=True,
            reading=0,
            read_at=self._clock(),
            warmed_at=self._clock(),
        )
        self._servers[key] = _Server(view, launched=self._launched.pop(key))
        self._admit()

    def _drain(self, count: int) -> bool:
        """Take instances out of placement; False if not enough of them are idle."""
        victims = choose_victims((server.view for server in self._servers.values()), count)
        if len(victims) < count:
            return False
        for victim in victims:
            self._servers[victim.key].view = replace(victim, takes_jobs=False)
        remove = partial(self._remove, [victim.key for victim in victims])
        self._plan(self._now + REMOVAL_SECONDS, _Order.REMOVE, remove)
        return True

    def _let_go(self, count: int) -> None:
        """Leave the choice to Auto Scaling: the one whose next hour of uptime begins first."""
        servers = sorted(self._servers.values(), key=lambda s: -((self._now - s.launched) % 3600.0))
        self._remove([server.view.key for server in servers[:count]])

    def _remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            server = self._servers.pop(key)
            self._record.lifetimes.append((server.launched, self._now))
            self._record.killed += bool(server.prompts)
            self._queue.extendleft(reversed(server.prompts))
        self._is_removing = False
        self._admit()

    # The scaler

    def _check(self) -> None:
        interval = self._policy.check_interval.total_seconds()
        self._plan(self._now + interval, _Order.CHECK, self._check)
        self._record.samples.append(
            FleetSample(
                at=self._now,
                waiting=len(self._queue)
                + sum(max(0, len(server.prompts) - 1) for server in self._servers.values()),
                ready=len(self._servers),
                desired=self._desired,
            )
        )
        if self._is_removing:
            return  # the tick that removes an instance holds its fleet until it is done
        decision = decide_scaling(self._observe(), self._state, self._policy)
        if decision is None:
            return
        self._state = decision.state
        count = abs(decision.desired - self._desired)
        if decision.action is ScalingAction.SCALE_OUT:
            self._launch(count, ready_in=self._options.startup_seconds)
        elif decision.action is ScalingAction.SCALE_IN:
            if not self._options.protects_jobs:
                let_go = partial(self._let_go, count)
                self._plan(self._now + REMOVAL_SECONDS, _Order.REMOVE, let_go)
            elif not self._drain(count):
                self._state = decision.state_if_refused
                return
            self._is_removing = True
        else:
            return
        self._desired = decision.desired
        self._record.calls.append(
            ScalingCall(self._now, decision.action, decision.desired, decision.reason)
        )

    def _observe(self) -> FleetObservation:
        return FleetObservation(
            tick=self._clock(),
            desired=self._desired,
            minimum=self._options.minimum,
            maximum=self._options.maximum,
            readings=[server.view.reading for server in self._servers.values()],
            launching=len(self._launched),
            backlog=len(self._queue),
            jobs=sum(len(server.view.jobs) for server in self._servers.values()),
        )

    def _close(self) -> SimulationRecord:
        self._record.end = max(self._record.end, self._now)
        servers = [server.launched for server in self._servers.values()]
        for launched in (*servers, *self._launched.values()):
            self._record.lifetimes.append((launched, self._record.end))
        return self._record

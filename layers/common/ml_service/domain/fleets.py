"""Fleets and their instances: who is ready, who has room, who is next."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ml_service.domain.scaling_policy import ScalingPolicy, read_policy
from ml_service.domain.warm_ups import WARM_UP_LIFETIME

REGISTRY_MAX_AGE = timedelta(seconds=90)
"""Older than one minute tick and a half: admission then asks for itself."""
BUSY_MAX_AGE = timedelta(seconds=5)
"""So long an instance that was full of others' prompts is believed to be: these end unseen."""

ADMISSION_LIFETIME = timedelta(seconds=60)
"""An admission that began longer ago than this has died, and another may begin."""

QUARANTINE_FAULTS = 3
"""So many prompts in a row that an instance lost or broke, and it gets no more."""
QUARANTINE_TIME = timedelta(minutes=5)
"""Then one that answers may try again; the next fault puts it back at once."""


class Fleet(BaseModel):
    """One job type's task queue and Auto Scaling group, as the stage is configured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_queue_url: str
    group_name: str
    threshold: int = Field(gt=0)
    """T: more prompts than this on one instance ask for one instance more."""
    slots_per_instance: int = Field(gt=0)
    """K: at most this many of our prompts, pending and running, on one instance."""
    scaling: Mapping[str, Any] = {}
    """The preset and whatever else is to differ from the plain rule, by parameter."""

    @model_validator(mode="after")
    def _check_scaling(self) -> Self:
        self.make_policy()
        return self

    def make_policy(self) -> ScalingPolicy:
        """The scaler's policy for this fleet."""
        return read_policy(self.scaling, threshold=self.threshold)


@dataclass(frozen=True)
class GroupMember:
    """An instance as Auto Scaling and EC2 describe it."""

    instance_id: str
    launched_at: datetime
    address: str
    """Private IPv4 address; empty until EC2 has given one."""
    in_service: bool
    """InService in its group and running in EC2."""
    is_protected: bool = False
    """Auto Scaling may not choose it for scale-in."""

    @property
    def key(self) -> str:
        """Instance id plus start time: one that comes back from a warm pool is a new one."""
        return f"{self.instance_id}#{self.launched_at:%Y%m%dT%H%M%SZ}"


@dataclass(frozen=True)
class Group:
    """An Auto Scaling group as it is described, with the members that count as capacity."""

    desired: int
    minimum: int
    maximum: int
    members: Sequence[GroupMember]
    obstacles: Sequence[str] = ()
    """Sentences that say why the group must not shrink now."""
    is_paused: bool = False
    """A person has tagged it as paused: the scaler leaves it alone."""


@dataclass(frozen=True)
class Instance:
    """An instance as the fleet table knows it."""

    key: str
    instance_id: str
    address: str
    in_service: bool
    takes_jobs: bool
    """False while it is being drained."""
    reading: int | None
    """ComfyUI's own count of pending and running prompts when last asked; None: no answer."""
    read_at: datetime
    jobs: frozenset[str] = frozenset()
    """Ids of the jobs that have a slot here."""
    placed_at: datetime | None = None
    """When a job was last given a slot here."""
    faults: int = 0
    """Prompts in a row that it lost or broke through no fault of the job."""
    quarantined_at: datetime | None = None
    """When it had too many of them; None while it is trusted."""
    stalled_at: datetime | None = None
    """When a prompt last left it because its queue had stalled; None once one has succeeded."""
    warmed_at: datetime | None = None
    """When its warm-up since its launch was over; None: it is cold."""
    warming_since: datetime | None = None
    """When the warm-up began that is at work; None if none is."""
    warm_up_tries: int = 0
    """Warm-ups that failed through its own fault."""
    warm_up_fault: str = ""
    """What was wrong with the last warm-up, in a sentence."""

    @property
    def is_warm(self) -> bool:
        """Whether its warm-up is over."""
        return self.warmed_at is not None

    @property
    def has_answered(self) -> bool:
        """Whether it has answered since its launch."""
        return self.reading is not None or self.is_warm or self.warming_since is not None

    @property
    def is_ready(self) -> bool:
        """Whether a job may be placed here."""
        return (
            self.in_service
            and self.takes_jobs
            and self.is_warm
            and self.reading is not None
            and self.quarantined_at is None
        )

    def needs_warm_up(self, now: datetime) -> bool:
        """Whether it answers, is cold, and nobody is at its warm-up."""
        return (
            self.in_service
            and self.reading is not None
            and not self.is_warm
            and (self.warming_since is None or self.warming_since + WARM_UP_LIFETIME <= now)
        )

    def may_return(self, now: datetime) -> bool:
        """Whether a quarantined instance has answered again, and long enough after."""
        return (
            self.quarantined_at is not None
            and self.reading is not None
            and self.quarantined_at + QUARANTINE_TIME <= min(now, self.read_at)
        )

    @property
    def load(self) -> int:
        """Prompts there or to come; the reading counts too, since other stages share it."""
        return max(len(self.jobs), self.reading or 0)

    def free_slots(self, slots: int) -> int:
        """Slots left of K."""
        return max(0, slots - self.load)

    def expecting(self, prompts: int) -> "Instance":
        """The instance as it will be once so many prompts have come that it does not know yet."""
        if self.reading is None:
            return self
        return replace(self, reading=self.reading + prompts)

    def with_job(self, job_id: str, at: datetime) -> "Instance":
        """The instance once the job has a slot and its prompt has come."""
        return replace(self.expecting(1), jobs=self.jobs | {job_id}, placed_at=at)


def rank_instances(
    instances: Iterable[Instance], *, slots: int, avoid: Collection[str] = ()
) -> list[Instance]:
    """Instances that have room, the best first: least loaded, then longest without a job.

    Those whose keys are to be avoided come last.
    """
    candidates = [i for i in instances if i.is_ready and i.free_slots(slots) > 0]
    return sorted(
        candidates,
        key=lambda i: (
            i.key in avoid,
            -i.free_slots(slots),
            i.placed_at.timestamp() if i.placed_at else 0.0,
            i.key,
        ),
    )


def find_shorter_queue(
    instances: Iterable[Instance], *, slots: int, ahead: int, avoid: Collection[str]
) -> Instance | None:
    """The best instance with room where fewer prompts than ``ahead`` would be before a new one.

    None are those whose keys are to be avoided.
    """
    others = [instance for instance in instances if instance.key not in avoid]
    best = next(iter(rank_instances(others, slots=slots)), None)
    return best if best is not None and best.load < ahead else None


def count_free_slots(instances: Iterable[Instance], *, slots: int) -> int:
    """How many jobs the fleet could take now."""
    return sum(i.free_slots(slots) for i in instances if i.is_ready)


def choose_victims(instances: Iterable[Instance], count: int) -> list[Instance]:
    """Instances without any work that may leave the fleet, fewer if no more are idle.

    Those in quarantine go first, then those longest without a job.
    """
    return sorted(
        (i for i in instances if i.in_service and i.takes_jobs and i.reading == 0 and not i.jobs),
        key=lambda i: (
            i.quarantined_at is None,
            i.placed_at.timestamp() if i.placed_at else 0.0,
            i.key,
        ),
    )[:count]


def is_registry_stale(instances: Sequence[Instance], now: datetime, *, slots: int) -> bool:
    """Whether the fleet table has no instance, or one not asked for too long.

    Where no slot is free, an instance that would have one but for the prompts of others (another
    stage's, a person's, a warm-up's) is asked sooner.
    """
    if not instances or min(i.read_at for i in instances) < now - REGISTRY_MAX_AGE:
        return True
    return not count_free_slots(instances, slots=slots) and any(
        i.is_ready and len(i.jobs) < slots and i.read_at < now - BUSY_MAX_AGE for i in instances
    )

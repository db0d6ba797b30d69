"""The parameters of the scaling rules, their presets, and the minimums and maximums of a week."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_TICK = timedelta(minutes=1)
_WEEK = frozenset(range(7))


class ScalingRule(StrEnum):
    """What the desired capacity follows."""

    QUEUE_LENGTH = "queue-length"
    """The longest queue of an instance, compared with the threshold."""
    JOB_COUNT = "job-count"
    """The number of jobs that wait and run, once it is stable."""


class ScalingPreset(StrEnum):
    """A named choice of parameters."""

    STREAK = "streak"
    """The plain rule."""
    NEED = "need"
    """The plain rule with every improvement."""
    ELASTIC = "elastic"
    """As many instances as jobs, and none without."""


class ScheduledBounds(BaseModel):
    """A stretch of some days of the week that has a minimum or maximum of its own.

    In UTC, which knows no summer time: nothing happens twice, and nothing is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: frozenset[int] = _WEEK
    """Days on which the stretch begins; Monday is 0."""
    starts_at: time
    ends_at: time
    """Not later than ``starts_at`` means the day after."""
    minimum: int | None = Field(default=None, ge=0)
    maximum: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.days or not self.days <= _WEEK:
            raise ValueError("days are numbers from 0, Monday, to 6, Sunday")
        if self.minimum is None and self.maximum is None:
            raise ValueError("a stretch needs a minimum or a maximum")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("the minimum is over the maximum")
        return self

    def covers(self, moment: datetime) -> bool:
        """Whether the stretch holds at a moment, of whatever time zone."""
        moment = moment.astimezone(UTC)
        of_day = moment.time()
        if self.starts_at < self.ends_at:
            return moment.weekday() in self.days and self.starts_at <= of_day < self.ends_at
        if of_day >= self.starts_at:
            return moment.weekday() in self.days
        return of_day < self.ends_at and (moment.weekday() - 1) % 7 in self.days


class ScalingPolicy(BaseModel):
    """The numbers of the rule for one fleet; as it stands here, the plain rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: ScalingRule = ScalingRule.QUEUE_LENGTH
    threshold: int = Field(gt=0)
    """T: more prompts than this on one instance are too many."""
    slots_per_instance: int | None = Field(default=None, ge=1)
    """K: at most this many of our prompts, pending and running, on one instance; None: 2T + 4."""
    out_checks: int = Field(default=3, ge=1)
    """Checks in a row until the fleet grows."""
    in_checks: int = Field(default=3, ge=1)
    """Checks in a row until it shrinks."""
    immediate_factor: int = Field(default=2, ge=1)
    """So many times T grows the fleet at once."""
    out_cooldown: timedelta = Field(default=timedelta(seconds=600), ge=timedelta())
    """Start-up and settling: for so long after an action nothing counts towards growing."""
    in_cooldown: timedelta = Field(default=timedelta(seconds=600), ge=timedelta())
    """For so long after an action nothing counts towards shrinking."""
    max_gap: timedelta = timedelta(seconds=150)
    """Checks further apart than this are not in a row: a streak begins anew."""
    step: int = Field(default=1, ge=1)
    """Instances that one action adds or takes."""
    minimum: int | None = Field(default=None, ge=0)
    """Over the group's own minimum, where that is not meant."""
    maximum: int | None = Field(default=None, ge=0)
    """Under the group's own maximum, where that is not meant."""
    schedule: Sequence[ScheduledBounds] = ()
    """Minimums and maximums of parts of the week; the first that covers a moment holds."""
    counts_backlog: bool = False
    """The queue of an instance has its share of the jobs that wait in the task queue."""
    sizes_step_by_need: bool = False
    """At once means as many instances as bring the queues under T, instead of a step."""
    shrinks_by_need: bool = False
    """Instances are too many that no check of the idle streak needed to run every prompt at once;
    otherwise one step is too many when no prompt is left anywhere."""
    moves_waiting: bool = False
    """A prompt that waits on an instance goes to another one where fewer are before it."""
    checks_per_tick: int = Field(default=1, ge=1, le=6)
    """Checks in a minute, evenly spaced."""
    is_dry_run: bool = False
    """Decides as if it acted, and leaves the group alone."""
    is_paused: bool = False
    """Observes, and does not act."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        least = self.immediate_factor * self.threshold + 2
        if not self.counts_backlog and self.slots < least:
            raise ValueError(
                f"{self.slots} slots per instance are too few: a queue could never be so long that "
                f"the fleet grows at once; at least {least}, or count the backlog"
            )
        return self

    @property
    def slots(self) -> int:
        """K, as given or as the threshold asks for."""
        given = self.slots_per_instance
        return self.immediate_factor * self.threshold + 4 if given is None else given

    @property
    def check_interval(self) -> timedelta:
        """Time from one check to the next."""
        return _TICK / self.checks_per_tick

    def bounds(self, moment: datetime, *, minimum: int, maximum: int) -> tuple[int, int]:
        """The minimum and maximum that hold at a moment, never beyond the group's own."""
        least, most = self.minimum, self.maximum
        chosen = next((stretch for stretch in self.schedule if stretch.covers(moment)), None)
        if chosen is not None:
            least = least if chosen.minimum is None else chosen.minimum
            most = most if chosen.maximum is None else chosen.maximum
        most = maximum if most is None else max(minimum, min(most, maximum))
        least = minimum if least is None else max(minimum, min(least, most))
        return least, most


_PRESETS: dict[ScalingPreset, dict[str, object]] = {
    ScalingPreset.STREAK: {},
    ScalingPreset.NEED: {
        "slots_per_instance": 2,
        "counts_backlog": True,
        "sizes_step_by_need": True,
        "shrinks_by_need": True,
        "moves_waiting": True,
        "checks_per_tick": 4,
        "in_checks": 60,
        # A start-up: before it is over, nobody knows what the last action was worth.
        "out_cooldown": timedelta(seconds=240),
        "in_cooldown": timedelta(seconds=240),
    },
    ScalingPreset.ELASTIC: {
        "rule": ScalingRule.JOB_COUNT,
        "slots_per_instance": 1,
        "counts_backlog": True,
        "in_checks": 10,
        "out_cooldown": timedelta(),
        "in_cooldown": timedelta(),
    },
}


def make_policy(preset: ScalingPreset, **parameters: object) -> ScalingPolicy:
    """A preset with a threshold and whatever else is to differ from it.

    Raises pydantic's ValidationError naming the parameter that is wrong.
    """
    return ScalingPolicy.model_validate({**_PRESETS[ScalingPreset(preset)], **parameters})


def read_policy(parameters: Mapping[str, Any], *, threshold: int) -> ScalingPolicy:
    """The policy that a stage's parameters ask for: a preset's, and what differs from it.

    Without a ``preset`` it is the plain rule. Raises ValueError naming what is wrong.
    """
    others = dict(parameters)
    if "threshold" in others:
        raise ValueError("threshold is a parameter of its own, beside the policy")
    preset = ScalingPreset(others.pop("preset", ScalingPreset.STREAK))
    return make_policy(preset, threshold=threshold, **others)

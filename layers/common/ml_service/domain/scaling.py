"""The scaler: one pure step from a check's observation to a decision with its reason.

The plain rule, for a threshold T: more than T prompts on some instance in three checks in a row,
one instance more; more than 2T, one more at once; no prompt anywhere in three checks in a row, one
less. Anything between ends the streaks. For ten minutes after an accepted action nothing counts.
Each number of it, and each exception from it, is a parameter of the policy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

from ml_service.domain.scaling_policy import ScalingPolicy, ScalingRule


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class FleetObservation(_Frozen):
    """What one check saw of a fleet."""

    tick: datetime
    """The check's own time, from its event: the only time that the policy knows."""
    desired: int
    minimum: int
    maximum: int
    readings: Sequence[int | None]
    """Prompts pending and running per running instance; None where it did not answer."""
    launching: int = 0
    """Instances that count as capacity but do not run yet."""
    backlog: int | None = None
    """Jobs that wait in the task queue; None if nobody counted them."""
    jobs: int = 0
    """Jobs that have a slot on an instance."""
    obstacles: Sequence[str] = ()
    """Sentences that say why the group must not shrink now, as it is set up or busy."""
    is_paused: bool = False
    """A person has tagged the group as paused."""


class ScalingIntent(_Frozen):
    """An action that is stored before it is done, so that a crash amid it can be told."""

    desired: int
    """Desired capacity once it is done."""
    no_out_until: datetime | None = None
    no_in_until: datetime | None = None


class ScalerState(_Frozen):
    """What the scaler remembers of a fleet between checks."""

    last_tick: datetime | None = None
    desired: int | None = None
    """Desired capacity as the last check left it; another value now is a person's doing."""
    busy_checks: int = 0
    """Checks in a row that asked for more; with the rule of the job count, of the same count."""
    idle_checks: int = 0
    idle_peak: int = 0
    """The most prompts of the fleet in the idle checks, for a policy that shrinks by need."""
    job_count: int | None = None
    """Jobs at the last check, for the rule that follows their number."""
    no_out_until: datetime | None = None
    """Before this, nothing counts towards growing."""
    no_in_until: datetime | None = None
    """Before this, nothing counts towards shrinking."""
    shielded: tuple[str, ...] = ()
    """Ids of instances that were protected from scale-in for an action, and may still be."""
    intent: ScalingIntent | None = None
    """An action that was begun and whose end nobody has stored."""
    silent_ticks: Mapping[str, int] = Field(default_factory=dict)
    """Ticks in a row that each silent instance has not answered, by its key."""

    @property
    def cooldown_until(self) -> datetime | None:
        """Until when nothing counts at all; None if something does already."""
        if self.no_out_until is None or self.no_in_until is None:
            return None
        return min(self.no_out_until, self.no_in_until)


class ScalingAction(StrEnum):
    """What a decision asks for."""

    NONE = "NONE"
    SCALE_OUT = "SCALE_OUT"
    SCALE_IN = "SCALE_IN"


class ScalingDecision(_Frozen):
    """What is to be done, why, and what to remember."""

    action: ScalingAction
    desired: int
    reason: str
    observation: FleetObservation
    state: ScalerState
    """What to remember if the action is accepted, or there is none."""
    state_if_refused: ScalerState
    """What to remember if the action fails or is not allowed: no cooldown, the streak stays."""

    @property
    def claim(self) -> ScalerState:
        """What to remember before the action: the check is taken, and what it is about to do."""
        if self.action is ScalingAction.NONE:
            return self.state
        intent = ScalingIntent(
            desired=self.desired,
            no_out_until=self.state.no_out_until,
            no_in_until=self.state.no_in_until,
        )
        return self.state_if_refused.model_copy(update={"intent": intent})


def decide_scaling(
    observation: FleetObservation, state: ScalerState, policy: ScalingPolicy
) -> ScalingDecision | None:
    """Decide one check; None if its time is not after the last one's and so it must do nothing.

    Time goes by in buckets, a minute unless there are several checks in one: of two checks in one
    bucket only the first counts. Unknown readings are never taken for 0: the known ones may ask for
    more capacity, any unknown one ends the idle streak, and with none known nothing is decided.
    """
    if state.last_tick is not None:
        if _count_buckets(observation.tick, policy) <= _count_buckets(state.last_tick, policy):
            return None
        if observation.tick - state.last_tick > policy.max_gap:
            state = state.model_copy(update={"busy_checks": 0, "idle_checks": 0, "idle_peak": 0})
    return _Check(observation, _settle_intent(observation, state), policy).decide()


def _count_buckets(tick: datetime, policy: ScalingPolicy) -> int:
    return int(tick.timestamp() // policy.check_interval.total_seconds())


def _settle_intent(observation: FleetObservation, state: ScalerState) -> ScalerState:
    """What became of an action after which the scaler died: the group itself knows."""
    if state.intent is None:
        return state
    if observation.desired != state.intent.desired:
        return state.model_copy(update={"intent": None})
    return ScalerState(last_tick=state.last_tick, **state.intent.model_dump())


@dataclass(frozen=True)
class _Check:
    """One check of one fleet."""

    observation: FleetObservation
    state: ScalerState
    policy: ScalingPolicy

    @cached_property
    def known(self) -> Sequence[int]:
        return [reading for reading in self.observation.readings if reading is not None]

    @property
    def backlog(self) -> int:
        """Waiting jobs that count."""
        return (self.observation.backlog or 0) if self.policy.counts_backlog else 0

    @property
    def demand(self) -> int:
        """All prompts of the fleet, those that are still jobs in the queue included."""
        return max(sum(self.known), self.observation.jobs) + self.backlog

    @cached_property
    def bounds(self) -> tuple[int, int]:
        seen = self.observation
        return self.policy.bounds(seen.tick, minimum=seen.minimum, maximum=seen.maximum)

    @property
    def may_grow(self) -> bool:
        until = self.state.no_out_until
        return until is None or self.observation.tick >= until

    @property
    def may_shrink(self) -> bool:
        until = self.state.no_in_until
        return until is None or self.observation.tick >= until

    def decide(self) -> ScalingDecision:
        seen, state = self.observation, self.state
        if state.desired is not None and seen.desired != state.desired:
            return self._adopt()
        if not self.may_grow and not self.may_shrink:
            return self._stay(f"Cooling down until {state.cooldown_until:%H:%M:%S}.")
        minimum, maximum = self.bounds
        if seen.desired < minimum and self.may_grow:
            return self._grow(f"The minimum is now {minimum}.", minimum - seen.desired)
        if not self.known and (seen.readings or not self.policy.counts_backlog):
            return self._stay("No running instance has answered.")
        if seen.desired > maximum and min(self.known, default=1) == 0:
            return self._shrink(f"The maximum is now {maximum}", checks=1, to=maximum)
        if self.policy.rule is ScalingRule.JOB_COUNT:
            return self._follow_job_count()
        return self._follow_queue_length()

    def _follow_queue_length(self) -> ScalingDecision:
        policy = self.policy
        if self.observation.desired == 0 and self.backlog and self.may_grow:
            return self._grow("Jobs wait, and there is no instance.", policy.step)
        longest = max(self.known, default=0) + math.ceil(self.backlog / max(1, len(self.known)))
        if longest > policy.threshold:
            return self._decide_busy(longest)
        desired = self.observation.desired
        if policy.shrinks_by_need and self.demand < desired:
            peak = max(self.demand, self.state.idle_peak)
            reason = f"At most {peak} prompts at once on {desired} instances"
            return self._shrink(reason, checks=policy.in_checks, to=peak, peak=peak)
        if longest == 0:
            to = desired - policy.step
            return self._shrink("All queues are empty", checks=policy.in_checks, to=to)
        return self._stay(f"The longest queue is {longest}: neither busy nor idle.")

    def _decide_busy(self, longest: int) -> ScalingDecision:
        policy = self.policy
        if not self.may_grow:
            return self._stay(
                f"The longest queue is {longest}. No scale-out until "
                f"{self.state.no_out_until:%H:%M:%S}."
            )
        busy_checks = self.state.busy_checks + 1
        immediate = policy.immediate_factor * policy.threshold
        step = policy.step
        if longest > immediate:
            reason = f"The longest queue is {longest}, more than {immediate}."
            if policy.sizes_step_by_need:
                wanted = math.ceil(self.demand / policy.threshold)
                step = max(step, wanted - self.observation.desired)
        elif busy_checks >= policy.out_checks:
            reason = (
                f"The longest queue is {longest}, more than {policy.threshold} for "
                f"{busy_checks} checks in a row."
            )
        else:
            return self._stay(
                f"The longest queue is {longest}, more than {policy.threshold}: check "
                f"{busy_checks} of {policy.out_checks}.",
                busy_checks=busy_checks,
            )
        return self._grow(reason, step, busy_checks=busy_checks)

    def _follow_job_count(self) -> ScalingDecision:
        count, seen = self.demand, self.observation
        if count == 0:
            return self._shrink(
                "No job waits or runs", checks=self.policy.in_checks, to=self.bounds[0]
            )
        checks = self.state.busy_checks + 1 if self.state.job_count == count else 1
        wanted = min(count, self.bounds[1])
        if wanted <= seen.desired:
            reason = f"There are instances for {count} jobs."
        elif not self.may_grow:
            reason = f"{count} jobs. No scale-out until {self.state.no_out_until:%H:%M:%S}."
        elif checks < self.policy.out_checks:
            reason = f"{count} jobs: check {checks} of {self.policy.out_checks} with as many."
        else:
            reason = f"{count} jobs in {checks} checks in a row."
            return self._grow(reason, wanted - seen.desired, busy_checks=checks)
        return self._stay(reason, busy_checks=checks, job_count=count)

    def _grow(self, reason: str, step: int, *, busy_checks: int = 0) -> ScalingDecision:
        seen = self.observation
        desired = min(seen.desired + step, self.bounds[1])
        if desired <= seen.desired:
            return self._stay(f"{reason} The fleet is at its maximum.", busy_checks=busy_checks)
        refused = self._remember(busy_checks=busy_checks, job_count=self.state.job_count)
        return self._act(ScalingAction.SCALE_OUT, desired, reason, refused)

    def _shrink(self, reason: str, *, checks: int, to: int, peak: int = 0) -> ScalingDecision:
        """Shrink if this check ends the streak and nothing speaks against it.

        ``reason`` is a sentence that has no full stop yet.
        """
        seen = self.observation
        if not seen.readings:
            return self._stay("No instance is in service: there is none that could be idle.")
        if len(self.known) < len(seen.readings):
            return self._stay("An instance has not answered: it may be busy.")
        if self.policy.counts_backlog and seen.backlog is None:
            return self._stay("The task queue has not answered: jobs may wait in it.")
        if seen.launching:
            return self._stay("Idle, but an instance is still launching.")
        if not self.may_shrink:
            return self._stay(f"{reason}. No scale-in until {self.state.no_in_until:%H:%M:%S}.")
        idle_checks = self.state.idle_checks + 1
        if idle_checks < checks:
            return self._stay(
                f"{reason}: check {idle_checks} of {checks}.",
                idle_checks=idle_checks,
                idle_peak=peak,
            )
        reason += f" for {idle_checks} checks in a row." if checks > 1 else "."
        desired = max(to, self.bounds[0])
        if desired >= seen.desired:
            reason = f"{reason} The fleet is at its minimum."
            return self._stay(reason, idle_checks=idle_checks, idle_peak=peak)
        if seen.obstacles:
            reason = " ".join([reason, "No scale-in:", *seen.obstacles])
            return self._stay(reason, idle_checks=idle_checks, idle_peak=peak)
        refused = self._remember(idle_checks=idle_checks, idle_peak=peak)
        return self._act(ScalingAction.SCALE_IN, desired, reason, refused)

    def _adopt(self) -> ScalingDecision:
        seen = self.observation
        reason = (
            f"Desired capacity was changed from {self.state.desired} to {seen.desired} by "
            "someone else: adopted."
        )
        return self._decision(ScalingAction.NONE, seen.desired, reason, self._rest(seen.desired))

    def _act(
        self, action: ScalingAction, desired: int, reason: str, refused: ScalerState
    ) -> ScalingDecision:
        seen = self.observation
        if seen.is_paused or self.policy.is_paused:
            return self._decision(
                ScalingAction.NONE, seen.desired, f"{reason} Paused: not done.", refused
            )
        if self.policy.is_dry_run:
            reason = f"{reason} Dry run: not changed to {desired}."
            rested = self._rest(seen.desired)
            return self._decision(ScalingAction.NONE, seen.desired, reason, rested)
        return self._decision(action, desired, reason, self._rest(desired), refused)

    def _stay(
        self,
        reason: str,
        *,
        busy_checks: int = 0,
        idle_checks: int = 0,
        idle_peak: int = 0,
        job_count: int | None = None,
    ) -> ScalingDecision:
        state = self._remember(
            busy_checks=busy_checks,
            idle_checks=idle_checks,
            idle_peak=idle_peak,
            job_count=job_count,
        )
        return self._decision(ScalingAction.NONE, self.observation.desired, reason, state)

    def _decision(
        self,
        action: ScalingAction,
        desired: int,
        reason: str,
        state: ScalerState,
        state_if_refused: ScalerState | None = None,
    ) -> ScalingDecision:
        return ScalingDecision(
            action=action,
            desired=desired,
            reason=reason,
            observation=self.observation,
            state=state,
            state_if_refused=state_if_refused or state,
        )

    def _rest(self, desired: int) -> ScalerState:
        """The memory after an action: both cooldowns begin, and no streak is left."""
        tick = self.observation.tick
        return ScalerState(
            last_tick=tick,
            desired=desired,
            no_out_until=tick + self.policy.out_cooldown,
            no_in_until=tick + self.policy.in_cooldown,
        )

    def _remember(
        self,
        *,
        busy_checks: int = 0,
        idle_checks: int = 0,
        idle_peak: int = 0,
        job_count: int | None = None,
    ) -> ScalerState:
        """The memory after a check without an action; cooldowns that are over are forgotten."""
        return ScalerState(
            last_tick=self.observation.tick,
            desired=self.observation.desired,
            busy_checks=busy_checks,
            idle_checks=idle_checks,
            idle_peak=idle_peak,
            job_count=job_count,
            no_out_until=None if self.may_grow else self.state.no_out_until,
            no_in_until=None if self.may_shrink else self.state.no_in_until,
        )

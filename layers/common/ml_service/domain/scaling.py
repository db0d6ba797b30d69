"""The scaling policy: one pure step from a minute's observation to a decision with its reason.

The rule, for a threshold T: more than T prompts on some instance in three checks in a row, one
instance more; more than 2T, one more at once; no prompt anywhere in three checks in a row, one
less. Anything between ends the streaks. For ten minutes after an accepted action nothing counts.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ScalingPolicy(_Frozen):
    """The numbers of the rule for one fleet."""

    threshold: int = Field(gt=0)
    out_checks: int = 3
    in_checks: int = 3
    immediate_factor: int = 2
    cooldown: timedelta = timedelta(seconds=600)
    """Start-up and settling together."""
    max_gap: timedelta = timedelta(seconds=150)
    """Checks further apart than this are not in a row: a streak begins anew."""


class FleetObservation(_Frozen):
    """What one tick saw of a fleet."""

    tick: datetime
    """The tick's own time, from its event."""
    desired: int
    minimum: int
    maximum: int
    readings: Sequence[int | None]
    """Prompts pending and running per running instance; None where it did not answer."""
    launching: int = 0
    """Instances that count as capacity but do not run yet."""


class ScalerState(_Frozen):
    """What the scaler remembers of a fleet between ticks."""

    last_tick: datetime | None = None
    desired: int | None = None
    """Desired capacity as the last tick left it; another value now is a person's doing."""
    busy_checks: int = 0
    idle_checks: int = 0
    cooldown_until: datetime | None = None


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


def decide_scaling(
    observation: FleetObservation, state: ScalerState, policy: ScalingPolicy
) -> ScalingDecision | None:
    """Decide one tick; None if the tick is not after the last one and so must do nothing.

    Unknown readings are never taken for 0: the known ones may ask for more capacity, any unknown
    one ends the idle streak, and with none known nothing is decided.
    """
    tick = observation.tick
    if state.last_tick is not None and tick <= state.last_tick:
        return None
    if state.last_tick is not None and tick - state.last_tick > policy.max_gap:
        state = state.model_copy(update={"busy_checks": 0, "idle_checks": 0})

    if state.desired is not None and observation.desired != state.desired:
        return _stay(
            observation,
            f"Desired capacity was changed from {state.desired} to {observation.desired} by "
            "someone else: adopted.",
            cooldown_until=tick + policy.cooldown,
        )
    if state.cooldown_until is not None and tick < state.cooldown_until:
        return _stay(
            observation,
            f"Cooling down until {state.cooldown_until:%H:%M:%S}.",
            cooldown_until=state.cooldown_until,
        )

    known = [reading for reading in observation.readings if reading is not None]
    if not known:
        return _stay(observation, "No running instance has answered.")
    longest = max(known)

    if longest > policy.threshold:
        return _decide_busy(observation, state, policy, longest)
    if longest == 0:
        return _decide_idle(
            observation, state, policy, all_known=len(known) == len(observation.readings)
        )
    return _stay(observation, f"The longest queue is {longest}: neither busy nor idle.")


def _decide_busy(
    observation: FleetObservation, state: ScalerState, policy: ScalingPolicy, longest: int
) -> ScalingDecision:
    busy_checks = state.busy_checks + 1
    immediate = policy.immediate_factor * policy.threshold
    if longest > immediate:
        reason = f"The longest queue is {longest}, more than {immediate}."
    elif busy_checks >= policy.out_checks:
        reason = (
            f"The longest queue is {longest}, more than {policy.threshold} for "
            f"{busy_checks} checks in a row."
        )
    else:
        return _stay(
            observation,
            f"The longest queue is {longest}, more than {policy.threshold}: check {busy_checks} "
            f"of {policy.out_checks}.",
            busy_checks=busy_checks,
        )
    if observation.desired >= observation.maximum:
        return _stay(observation, f"{reason} The fleet is at its maximum.", busy_checks=busy_checks)
    refused = _remember(observation, busy_checks=busy_checks)
    return _act(observation, policy, ScalingAction.SCALE_OUT, reason, refused)


def _decide_idle(
    observation: FleetObservation, state: ScalerState, policy: ScalingPolicy, *, all_known: bool
) -> ScalingDecision:
    if not all_known:
        return _stay(observation, "An instance has not answered: it may be busy.")
    if observation.launching:
        return _stay(observation, "Idle, but an instance is still launching.")
    idle_checks = state.idle_checks + 1
    if idle_checks < policy.in_checks:
        return _stay(
            observation,
            f"All queues are empty: check {idle_checks} of {policy.in_checks}.",
            idle_checks=idle_checks,
        )
    if observation.desired <= observation.minimum:
        return _stay(
            observation,
            "All queues are empty. The fleet is at its minimum.",
            idle_checks=idle_checks,
        )
    reason = f"All queues are empty for {idle_checks} checks in a row."
    refused = _remember(observation, idle_checks=idle_checks)
    return _act(observation, policy, ScalingAction.SCALE_IN, reason, refused)


def _act(
    observation: FleetObservation,
    policy: ScalingPolicy,
    action: ScalingAction,
    reason: str,
    state_if_refused: ScalerState,
) -> ScalingDecision:
    desired = observation.desired + (1 if action is ScalingAction.SCALE_OUT else -1)
    return ScalingDecision(
        action=action,
        desired=desired,
        reason=reason,
        observation=observation,
        state=ScalerState(
            last_tick=observation.tick,
            desired=desired,
            cooldown_until=observation.tick + policy.cooldown,
        ),
        state_if_refused=state_if_refused,
    )


def _stay(
    observation: FleetObservation,
    reason: str,
    *,
    busy_checks: int = 0,
    idle_checks: int = 0,
    cooldown_until: datetime | None = None,
) -> ScalingDecision:
    state = _remember(
        observation,
        busy_checks=busy_checks,
        idle_checks=idle_checks,
        cooldown_until=cooldown_until,
    )
    return ScalingDecision(
        action=ScalingAction.NONE,
        desired=observation.desired,
        reason=reason,
        observation=observation,
        state=state,
        state_if_refused=state,
    )


def _remember(
    observation: FleetObservation,
    *,
    busy_checks: int = 0,
    idle_checks: int = 0,
    cooldown_until: datetime | None = None,
) -> ScalerState:
    return ScalerState(
        last_tick=observation.tick,
        desired=observation.desired,
        busy_checks=busy_checks,
        idle_checks=idle_checks,
        cooldown_until=cooldown_until,
    )

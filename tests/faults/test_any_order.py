"""Whatever happens, in whatever order: every message has one answer in the end.

The short form runs with the other tests, the long one in ``make faults``.
"""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ml_service.services.admit_jobs import AdmitJobs
from ml_service.services.await_prompt import AwaitPrompt
from ml_service.services.cancel_prompt import CancelPrompt
from ml_service.services.choose_instance import ChooseInstance
from ml_service.services.collect_outputs import CollectOutputs
from ml_service.services.dispatch_jobs import DispatchJobs
from ml_service.services.finish_job import FinishJob
from ml_service.services.scale_fleets import ScaleFleets
from ml_service.services.submit_prompt import SubmitPrompt
from ml_service.services.sweep_jobs import SweepJobs
from tests.faults.call_points import CallPoints, Strike
from tests.faults.stage import MINUTE, Stage

SERVICES = [
    AdmitJobs,
    AwaitPrompt,
    CancelPrompt,
    ChooseInstance,
    CollectOutputs,
    DispatchJobs,
    FinishJob,
    ScaleFleets,
    SubmitPrompt,
    SweepJobs,
]
STEPS = {
    "Choose Instance": ChooseInstance,
    "Submit Prompt": SubmitPrompt,
    "Await Prompt": AwaitPrompt,
    "Collect Outputs": CollectOutputs,
    "Finish Job": FinishJob,
}


def stop_all(stage: Stage) -> None:
    for execution in stage.awake():
        stage.stop(execution)


def pass_the_deadline(stage: Stage) -> None:
    stage.clock.sleep(timedelta(hours=2).total_seconds())
    stage.sweep()


MEETINGS = {
    "nothing": lambda stage: None,
    "a tick": Stage.tick,
    "a dispatch": Stage.dispatch,
    "an admission": Stage.admit,
    "a cancel": Stage.cancel,
    "a stop": stop_all,
    "the deadline": pass_the_deadline,
}
indexes = st.integers(0, 99)


class AnyOrder(RuleBasedStateMachine):
    """One fleet, its backend, its operators and its misfortunes."""

    @initialize(seconds=st.sampled_from([3.0, 60.0, 600.0]), slots=st.integers(1, 2))
    def begin(self, seconds: float, slots: int) -> None:
        self.stage = Stage(instances=2, minimum=1, slots=slots, prompt_seconds=seconds)

    # The backend and SQS

    @rule(jobs=st.integers(1, 4))
    def post(self, jobs: int) -> None:
        for _ in range(jobs):
            self.stage.post()

    @rule()
    def post_nonsense(self) -> None:
        self.stage.post(Subject="Unknown")

    @rule(index=indexes, which=st.booleans())
    def deliver_twice(self, index: int, which: bool) -> None:
        queue = self._queue(which)
        if queue.entries:
            queue.repeat(index % len(queue.entries))

    @rule(index=indexes, which=st.booleans())
    def deliver_out_of_turn(self, index: int, which: bool) -> None:
        queue = self._queue(which)
        if queue.entries:
            queue.move_to_the_end(index % len(queue.entries))

    @rule(index=indexes, which=st.booleans(), seconds=st.sampled_from([10, 100, 1000]))
    def deliver_late(self, index: int, which: bool, seconds: int) -> None:
        queue = self._queue(which)
        if queue.entries:
            queue.delay(index % len(queue.entries), timedelta(seconds=seconds))

    # The functions

    @rule()
    def dispatch(self) -> None:
        self.stage.dispatch()

    @rule()
    def admit(self) -> None:
        self.stage.admit()

    @rule()
    def tick(self) -> None:
        self.stage.clock.sleep(MINUTE.total_seconds())
        self.stage.tick()

    @rule()
    def tick_twice(self) -> None:
        before = self.stage.pool.groups[self.stage.group_name].desired
        self.stage.clock.sleep(MINUTE.total_seconds())
        self.stage.scale()
        self.stage.scale()
        after = self.stage.pool.groups[self.stage.group_name].desired
        assert abs(after - before) <= 1
        self.stage.fill_group()

    @rule()
    def cancel(self) -> None:
        self.stage.cancel()

    @rule(index=indexes, steps=st.integers(1, 8))
    def step_one(self, index: int, steps: int) -> None:
        for _ in range(steps):
            if awake := self.stage.awake():
                self.stage.step(awake[index % len(awake)])

    @rule(
        index=indexes,
        state=st.sampled_from(sorted(STEPS)),
        at=st.integers(1, 6),
        strike=st.sampled_from(Strike),
        meeting=st.sampled_from(sorted(MEETINGS)),
        restarts=st.booleans(),
    )
    def strike_step(
        self, *, index: int, state: str, at: int, strike: Strike, meeting: str, restarts: bool
    ) -> None:
        """Bring one execution to a step, if it comes there at once, and strike it there."""
        if not (awake := self.stage.awake()):
            return
        execution = awake[index % len(awake)]
        if restarts and (instance := self.stage.find_instance(execution.job_id)):
            instance.restart()
        for _ in range(10):
            if execution.is_awake and execution.state != state:
                self.stage.step(execution)
        if execution.is_awake and execution.state == state:
            self.strike_next(STEPS[state], at, strike, meeting)
            self.stage.step(execution)

    @rule(steps=st.integers(1, 8))
    def go_on(self, steps: int) -> None:
        self.stage.dispatch()
        self.stage.admit()
        for _ in range(steps):
            for execution in self.stage.awake():
                self.stage.step(execution)

    @rule(seconds=st.sampled_from([1, 5, 20, 100]))
    def wait(self, seconds: int) -> None:
        self.stage.clock.sleep(seconds)

    @rule(
        service=st.sampled_from(SERVICES),
        at=st.integers(1, 10),
        strike=st.sampled_from(Strike),
        meeting=st.sampled_from(sorted(MEETINGS)),
    )
    def strike_next(self, service: type, at: int, strike: Strike, meeting: str) -> None:
        self.stage.strikes[service] = CallPoints(
            at, strike, meets=lambda: MEETINGS[meeting](self.stage)
        )

    # Operators, Step Functions and the world

    @rule(index=indexes, is_told=st.booleans())
    def stop_execution(self, index: int, is_told: bool) -> None:
        running = [e for e in self.stage.executions.values() if e.status == "RUNNING"]
        if running:
            execution = running[index % len(running)]
            execution.status = "ABORTED"
            if is_told:
                self.stage.tell_end(execution)

    @rule(is_throttled=st.booleans())
    def throttle(self, is_throttled: bool) -> None:
        self.stage.is_throttled = is_throttled

    @rule()
    def lose_kicks_and_cancels(self) -> None:
        self.stage.admission.kicked.clear()
        self.stage.canceller.asked.clear()

    @precondition(lambda self: self.stage.present())
    @rule(index=indexes, what=st.sampled_from(["restart", "silence", "hang", "speak", "die"]))
    def trouble(self, index: int, what: str) -> None:
        present = self.stage.present()
        instance = present[index % len(present)]
        match what:
            case "restart":
                instance.restart()
            case "silence" | "speak":
                instance.is_silent = what == "silence"
            case "hang":
                instance.run()
                instance.hangs = True
            case "die":
                self.stage.terminate(instance.address)

    def _queue(self, is_input: bool):
        return self.stage.input_queue if is_input else self.stage.task_queue

    @invariant()
    def always(self) -> None:
        if hasattr(self, "stage"):
            self.stage.check_slots_and_answers()

    def teardown(self) -> None:
        """Troubles end but for those in wait, time goes on: everything must come to its end."""
        if not hasattr(self, "stage"):
            return
        stage = self.stage
        stage.is_throttled = False
        for instance in stage.present():
            instance.is_silent = False
            if instance.hangs:
                instance.restart()
        # Until now time may have passed without the ticks that repeat a lost cancel.
        stage.tick()
        stage.cancel()
        stage.settle(ticks=100)
        if not stage.is_quiet():
            stage.clock.sleep(timedelta(hours=24).total_seconds())  # messages that died wait on
            stage.settle(ticks=20)
        stage.check_end()


def run(machine: type[AnyOrder], *, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whatever_happens_every_message_has_one_answer():
    run(AnyOrder, examples=40, steps=30)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_whatever_happens_two_thousand_times_every_message_has_one_answer():
    run(AnyOrder, examples=2000, steps=50)

"""When a job will be done, as far as anybody can know."""

from datetime import timedelta
from typing import Any

import pytest

from ml_service.domain.estimates import estimate_seconds, measure_progress
from ml_service.domain.fleets import Instance
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.prompts import Progress
from tests.fakes import NOON
from tests.makers import JOB_ID, make_instance, make_job

BUSY = make_instance("a", reading=3)
IDLE = make_instance("b")
OWN = make_instance("a", jobs=frozenset({JOB_ID, "other"}), reading=1)
PLACE = {"instance": "i-a#1", "instance_id": "i-a", "address": "10.0.0.1"}


def submitted() -> Job:
    return make_job().admit(**PLACE, at=NOON).submit(prompt_id="p", at=NOON)


@pytest.mark.parametrize(
    ("job", "position", "instances", "seconds"),
    [
        pytest.param(make_job(), 0, [IDLE], 20, id="next on an idle fleet"),
        pytest.param(make_job(), 4, [IDLE], 100, id="four wait before it"),
        pytest.param(make_job(), 4, [IDLE, make_instance("c")], 60, id="two share the work"),
        pytest.param(make_job(), 0, [BUSY], 80, id="three run before it"),
        pytest.param(make_job(), 0, [make_instance(reading=None)], None, id="nobody is ready"),
        pytest.param(make_job(), 0, [], None, id="there is nobody"),
        pytest.param(submitted(), 0, [OWN], 40, id="another job is on its instance"),
        pytest.param(submitted(), 9, [IDLE], 20, id="its instance is gone"),
        pytest.param(make_job(state=JobState.FAILED), 0, [IDLE], None, id="it is closed"),
    ],
)
def test_what_is_before_a_job_takes_as_long_as_the_job(
    job: Job, position: int, instances: list[Instance], seconds: float | None
):
    assert estimate_seconds(job, position=position, instances=instances, now=NOON) == seconds


@pytest.mark.parametrize(("ran", "left"), [(0, 20), (15, 5), (90, 0)])
def test_a_running_job_needs_what_is_left_of_its_time(ran: float, left: float):
    job = submitted().see_running().see_queue_head("p", at=NOON)
    now = NOON + timedelta(seconds=ran)
    assert estimate_seconds(job, position=0, instances=[OWN], now=now) == left


def told(**progress: Any) -> Job:
    return submitted().report_progress(Progress(**progress))


@pytest.mark.parametrize(
    ("job", "share"),
    [
        (make_job(), None),
        (told(nodes_done=2), 0.4),
        (told(nodes_done=2, share=0.5), 0.5),
        (told(nodes_done=9), 1.0),
        (told(nodes_done=2).lose(), None),
        (make_job(state=JobState.SUCCEEDED), 1.0),
        (told(nodes_done=2).close(JobState.CANCELLED, reply="", at=NOON), None),
    ],
)
def test_progress_is_the_share_of_nodes_that_are_done(job: Job, share: float | None):
    assert measure_progress(job, nodes=5) == share

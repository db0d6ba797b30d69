"""What operators see and drop: this stage's own."""

import pytest

from ml_service.domain.jobs import JobState
from tests.api_world import KITE, ApiWorld, admitted, submitted
from tests.makers import FLEETS, JOB_ID, make_instance, make_job


def test_dropping_waiting_jobs_leaves_those_that_run_and_other_fleets(api: ApiWorld):
    api.jobs.add(make_job(job_id="waits"))
    api.jobs.add(submitted(job_id="runs"))
    api.jobs.add(make_job(job_id="elsewhere", fleet="makeup"))
    answer = api.request("DELETE", "/fleets/pulid/waiting-jobs")
    assert answer.json == {"job_ids": ["waits"], "is_complete": True}
    assert {job.job_id: job.state for job in api.jobs.jobs.values()} == {
        "waits": JobState.CANCELLED,
        "runs": JobState.SUBMITTED,
        "elsewhere": JobState.QUEUED,
    }


def test_dropping_running_jobs_takes_those_that_were_admitted(api: ApiWorld):
    api.jobs.add(make_job(job_id="waits"))
    api.jobs.add(admitted(job_id="begins"))
    api.jobs.add(submitted(job_id="runs"))
    answer = api.request("DELETE", "/fleets/pulid/running-jobs")
    assert answer.json == {"job_ids": ["begins", "runs"], "is_complete": True}


def test_many_jobs_are_dropped_in_several_calls(api: ApiWorld):
    for number in range(30):
        api.jobs.add(make_job(job_id=f"job-{number}"))
    answers = [api.request("DELETE", "/fleets/pulid/waiting-jobs").json for _ in range(2)]
    assert [len(answer["job_ids"]) for answer in answers] == [25, 5]
    assert [answer["is_complete"] for answer in answers] == [False, True]


def test_instances_tell_the_files_queued_on_them(api: ApiWorld):
    jobs = frozenset({JOB_ID, "leaked"})
    api.store.instances["makeup", "i-a#1"] = make_instance(key="i-a#1", reading=3, jobs=jobs)
    api.jobs.add(submitted(workflow="photo-make-up-lips-thumbnails"))
    (instance,) = api.request("GET", "/fleets/makeup/instances").json["instances"]
    assert (instance["instance_id"], instance["prompts"]) == ("i-a", 3)
    (job,) = instance["jobs"]
    assert (job["job_id"], job["status"]) == (JOB_ID, "SUBMITTED")
    assert len(job["files"]) == 2
    assert all(name.startswith("42-photo-make-up") for name in job["files"])


def test_fleets_tell_what_waits_and_what_is_free(api: ApiWorld):
    api.store.instances["pulid", "i-a#1"] = make_instance(reading=3)
    api.store.instances["pulid", "i-b#1"] = make_instance("b", reading=None)
    api.request("POST", "/jobs", KITE)
    fleets = {f["fleet"]: f for f in api.request("GET", "/fleets").json["fleets"]}
    assert fleets.keys() == FLEETS.keys()
    assert fleets["pulid"] == {
        "fleet": "pulid",
        "waiting": 1,
        "instances": 2,
        "ready_instances": 1,
        "slots": 14,
        "free_slots": 11,
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "instances"),
        ("DELETE", "waiting-jobs"),
        ("DELETE", "running-jobs"),
    ],
)
def test_a_fleet_that_there_is_not_is_not_found(api: ApiWorld, method: str, path: str):
    answer = api.request(method, f"/fleets/none/{path}")
    assert (answer.status, answer.json["code"]) == (404, "FLEET_NOT_FOUND")


def test_workflows_tell_their_inputs(api: ApiWorld):
    workflows = api.request("GET", "/workflows").json["workflows"]
    assert len(workflows) == 23
    (kite,) = [w for w in workflows if w["workflow"] == "text-to-image"]
    assert kite["inputs"]["positive_prompt"]["type"] == "text"


def test_health_tells_the_stage(api: ApiWorld):
    assert api.request("GET", "/health").json == {"status": "ok", "stage": "prod"}


def test_a_cold_instance_is_warmed_up_once(api: ApiWorld):
    api.store.instances["pulid", "i-a#1"] = make_instance(key="i-a#1", warmed_at=None)
    answers = [api.request("POST", "/fleets/pulid/instances/i-a/warm-up") for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 202]
    assert [answer.json["has_begun"] for answer in answers] == [True, False]
    assert api.warmer.asked == [("pulid", "i-a#1")]


def test_a_warm_instance_is_not_warmed_up_again(api: ApiWorld):
    api.store.instances["pulid", "i-a#1"] = make_instance(key="i-a#1")
    assert not api.request("POST", "/fleets/pulid/instances/i-a/warm-up").json["has_begun"]
    assert api.warmer.asked == []


def test_an_instance_that_there_is_not_cannot_be_warmed_up(api: ApiWorld):
    answer = api.request("POST", "/fleets/pulid/instances/i-none/warm-up")
    assert (answer.status, answer.json["code"]) == (404, "INSTANCE_NOT_FOUND")

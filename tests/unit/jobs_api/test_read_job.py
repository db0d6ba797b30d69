"""What a job tells of itself."""

from datetime import timedelta

import pytest

from ml_service.domain.prompts import Progress
from tests.api_world import ApiWorld, submitted, succeeded
from tests.fakes import NOON
from tests.makers import JOB_ID, make_job


def test_a_waiting_job_knows_its_position_and_when_it_will_be_done(api: ApiWorld):
    api.jobs.add(make_job())
    api.jobs.add(make_job(job_id="later", received_at=NOON + timedelta(seconds=1)))
    view = api.request("GET", "/jobs/later").json
    assert (view["status"], view["position"], view["progress"]) == ("QUEUED", 1, None)
    assert view["estimated_seconds"] is None  # no instance is ready
    assert view["timeline"] == [{"status": "QUEUED", "at": "2026-11-21T12:00:01Z"}]


def test_a_running_job_tells_its_progress(api: ApiWorld):
    api.jobs.add(submitted().see_running().report_progress(Progress(nodes_done=2, share=0.5)))
    view = api.request("GET", f"/jobs/{JOB_ID}").json
    assert 0 < view["progress"] < 1
    assert (view["position"], view["instance_id"], view["attempts"]) == (None, "i-a", 1)
    assert view["estimated_seconds"] == 26  # 20 s from its start, six seconds from now


def test_a_finished_job_has_its_outputs_by_urls_that_expire(api: ApiWorld):
    api.jobs.add(succeeded("comfyui-results/kite_1.png"))
    view = api.request("GET", f"/jobs/{JOB_ID}").json
    assert view["outputs"] == [
        {
            "role": "main",
            "name": "kite_1.png",
            "content_type": "image/png",
            "url": "https://results/comfyui-results/kite_1.png?seconds=900",
            "expires_at": "2026-11-21T12:15:00Z",
        }
    ]
    assert (view["progress"], view["estimated_seconds"]) == (1.0, None)
    assert [e["status"] for e in view["timeline"]] == [
        "QUEUED",
        "ADMITTED",
        "SUBMITTED",
        "SUCCEEDED",
    ]


def test_a_result_outlives_its_workflow(api: ApiWorld):
    api.jobs.add(succeeded("comfyui-results/a.png").model_copy(update={"workflow": "gone"}))
    assert api.request("GET", f"/jobs/{JOB_ID}").json["outputs"][0]["role"] == "main"


@pytest.mark.parametrize("job_id", ["no-such", "x" * 3000, "a.b", "%00", "a%2Fb"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/output")])
def test_what_is_no_job_of_this_stage_is_not_found(
    api: ApiWorld, job_id: str, method: str, path: str
):
    answer = api.request(method, f"/jobs/{job_id}{path}")
    assert (answer.status, answer.json["code"]) == (404, "JOB_NOT_FOUND")

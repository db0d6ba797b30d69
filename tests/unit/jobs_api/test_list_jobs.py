"""The list of jobs, page by page."""

from datetime import timedelta
from typing import Any

import pytest

from ml_service.domain.jobs import JobState
from tests.api_world import ApiWorld
from tests.fakes import NOON
from tests.makers import make_job


def add(api: ApiWorld, *seconds: int, **changes: Any) -> None:
    for second in seconds:
        moment = NOON + timedelta(seconds=second)
        api.jobs.add(make_job(job_id=f"job-{second}", received_at=moment, **changes))


def test_pages_follow_each_other_over_fleets_and_states(api: ApiWorld):
    add(api, 1, 4)
    add(api, 2, 5, fleet="makeup")
    add(api, 3, state=JobState.FAILED)
    url, pages = "/jobs?limit=2", []
    while True:
        page = api.request("GET", url).json
        pages.append([job["job_id"] for job in page["jobs"]])
        if page["cursor"] is None:
            break
        url = f"/jobs?limit=2&cursor={page['cursor']}"
    assert pages == [["job-5", "job-4"], ["job-3", "job-2"], ["job-1"]]


def test_fleet_and_status_choose(api: ApiWorld):
    add(api, 1)
    add(api, 2, fleet="makeup")
    add(api, 3, fleet="makeup", state=JobState.FAILED)
    page = api.request("GET", "/jobs?fleet=makeup&status=FAILED").json
    assert page == {
        "jobs": [
            {
                "job_id": "job-3",
                "status": "FAILED",
                "workflow": "flux-prompt",
                "fleet": "makeup",
                "received_at": "2026-11-21T12:00:03Z",
                "closed_at": None,
            }
        ],
        "cursor": None,
    }


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("fleet=none", 404, "FLEET_NOT_FOUND"),
        ("status=DONE", 422, "INVALID_REQUEST"),
        ("limit=0", 422, "INVALID_REQUEST"),
        ("cursor=!", 400, "INVALID_CURSOR"),
        ("cursor=" + "QUFB" * 400, 400, "INVALID_CURSOR"),
        ("cursor=_w==", 400, "INVALID_CURSOR"),
    ],
)
def test_a_wrong_query_is_refused(api: ApiWorld, query: str, status: int, code: str):
    answer = api.request("GET", f"/jobs?{query}")
    assert (answer.status, answer.json["code"]) == (status, code)

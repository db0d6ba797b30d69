"""The jobs API of two stages that share their instances, on the embedded AWS."""

import io
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from local.aws.embedded_aws import AwsOptions, EmbeddedAws, running_embedded_aws
from local.local_mode import LocalOptions, deploy_ml_service, deploy_stage

pytestmark = pytest.mark.timeout(240)  # two stages' functions start within it

SPEED = 1.0
PROMPT_SECONDS = 2.0
KITE = {"workflow": "text-to-image", "inputs": {"positive_prompt": "a red kite"}}


@dataclass(frozen=True)
class Api:
    """A client of one stage's API."""

    url: str

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(
            method, self.url + path, timeout=90, allow_redirects=False, **options
        )

    def send(self, headers: Mapping[str, str] | None = None) -> str:
        answer = self.call("POST", "jobs", json=KITE, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def show(self, job_id: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.call("GET", f"jobs/{job_id}").json()
        return shown

    def await_job(self, job_id: str, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + 90
        while not is_there(job := self.show(job_id)):
            assert time.monotonic() < end, job
            time.sleep(0.1)
        return job

    def await_status(self, job_id: str, status: str) -> dict[str, Any]:
        return self.await_job(job_id, lambda job: bool(job["status"] == status))


@dataclass(frozen=True)
class Stages:
    prod: Api
    dev: Api


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    folder: Path = tmp_path_factory.mktemp("stages")
    options = LocalOptions(speed=SPEED, prompt_seconds=PROMPT_SECONDS, boot_seconds=0.0)

    async def deploy(aws: EmbeddedAws) -> Stages:
        prod = await deploy_ml_service(aws, options, folder)
        dev = await deploy_stage(aws, "dev", await aws.create_network())
        return Stages(Api(prod.jobs_api_url), Api(dev.outputs["JobsApiUrl"]))

    with running_embedded_aws(deploy, AwsOptions(speed=SPEED)) as running:
        yield running.deployed


def test_two_stages_share_an_instance_and_never_touch_each_others_jobs(stages: Stages):
    """dev's job runs and succeeds; prod's, behind it on the same instance, is dropped."""
    mine, theirs = stages.prod, stages.dev
    their_job = theirs.send()
    runs = theirs.await_status(their_job, "SUBMITTED")
    my_job = mine.send()
    waits = mine.await_status(my_job, "SUBMITTED")
    assert waits["instance_id"] == runs["instance_id"]
    (instance,) = mine.call("GET", "fleets/pulid/instances").json()["instances"]
    assert [job["job_id"] for job in instance["jobs"]] == [my_job]

    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/output")):
        assert theirs.call(method, f"jobs/{my_job}{path}").status_code == 404
        assert mine.call(method, f"jobs/{their_job}{path}").status_code == 404
    dropped = mine.call("DELETE", "fleets/pulid/running-jobs").json()
    assert dropped == {"job_ids": [my_job], "is_complete": True}

    assert mine.show(my_job)["status"] == "CANCELLED"
    assert theirs.await_status(their_job, "SUCCEEDED")["attempts"] == 1
    assert [job["job_id"] for job in theirs.call("GET", "jobs").json()["jobs"]] == [their_job]


def test_cancelling_a_running_job_frees_its_instance_for_the_next(stages: Stages):
    api = stages.prod
    running = api.send()
    api.await_status(running, "SUBMITTED")
    cancelled = api.call("DELETE", f"jobs/{running}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")
    assert cancelled.json()["failure"]["code"] == "EXECUTION_ABORTED"
    (instance,) = api.call("GET", "fleets/pulid/instances").json()["instances"]
    assert instance["jobs"] == []


def test_a_job_is_sent_once_shown_until_it_is_done_and_its_output_fetched(stages: Stages):
    api, key = stages.prod, {"Idempotency-Key": "a key of its own"}
    job_id = api.send(key)
    assert api.send(key) == job_id
    done = api.await_status(job_id, "SUCCEEDED")
    assert done["progress"] == 1.0
    (output,) = done["outputs"]
    stored = requests.get(output["url"], timeout=10)
    assert stored.headers["Content-Type"] == output["content_type"] == "image/png"

    signed_at = next(p for p in output["url"].split("&") if "X-Amz-Date" in p)
    old = output["url"].replace(signed_at, "X-Amz-Date=20200101T000000Z")
    assert requests.get(old, timeout=10).status_code == 403

    led = api.call("GET", f"jobs/{job_id}/output")
    assert led.status_code == 302
    assert requests.get(led.headers["Location"], timeout=10).content == stored.content
    converted = api.call("GET", f"jobs/{job_id}/output", headers={"Accept": "image/webp"})
    assert Image.open(io.BytesIO(converted.content)).format == "WEBP"
    assert api.call("DELETE", f"jobs/{job_id}").status_code == 409


@pytest.mark.long
def test_cancelling_waiting_jobs_leaves_the_one_that_runs(stages: Stages):
    """dev has one slot: the first job takes it, the others wait on the task queue."""
    api = stages.dev
    first = api.send()
    api.await_status(first, "SUBMITTED")
    with ThreadPoolExecutor() as pool:
        second, third = pool.map(lambda _: api.send(), range(2))
    cancelled = api.call("DELETE", f"jobs/{second}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")
    dropped = api.call("DELETE", "fleets/pulid/waiting-jobs").json()
    assert dropped == {"job_ids": [third], "is_complete": True}
    assert api.await_status(first, "SUCCEEDED")["attempts"] == 1
    page = api.call("GET", "jobs?fleet=pulid&status=CANCELLED").json()
    assert {job["job_id"] for job in page["jobs"]} == {second, third}
    assert api.show(second)["attempts"] == 0

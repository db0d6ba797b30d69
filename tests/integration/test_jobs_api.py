"""The jobs API of two stages that share their instances, on the embedded AWS."""

import io
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore import auth
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from PIL import Image
from requests.auth import AuthBase

from local.aws.embedded_aws import AwsOptions, EmbeddedAws, running_embedded_aws
from local.local_mode import LocalOptions, deploy_ml_service, deploy_stage

pytestmark = pytest.mark.timeout(240)  # two stages' functions start within it

SPEED = 1.0
PROMPT_SECONDS = 2.0
KITE = {"workflow": "text-to-image", "inputs": {"positive_prompt": "a red kite"}}


@dataclass(frozen=True)
class Signer(AuthBase):
    """Signs requests as the user of an access key."""

    key: str = "caller"
    secret: str = "of the caller"  # noqa: S105  (the embedded AWS knows it from here)
    service: str = "lambda"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        signed = AWSRequest(request.method, request.url, data=request.body)
        credentials = Credentials(self.key, self.secret)
        SigV4Auth(credentials, self.service, "us-east-1").add_auth(signed)
        request.headers.update(dict(signed.headers))
        return request


@dataclass(frozen=True)
class Api:
    """A client of one stage's API."""

    url: str

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(
            method,
            self.url + path,
            timeout=90,
            allow_redirects=False,
            **{"auth": Signer(), **options},
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

    callers = {Signer.key: Signer.secret}
    with running_embedded_aws(deploy, AwsOptions(speed=SPEED, url_callers=callers)) as running:
        yield running.deployed


class OldSigner(Signer):
    """Signs as if it were ten minutes ago."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        with pytest.MonkeyPatch.context() as patch:
            past = datetime.now(UTC) - timedelta(minutes=10)
            patch.setattr(auth, "get_current_datetime", lambda: past)
            return super().__call__(request)


class Tamperer(Signer):
    """Changes what was signed."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        signed = super().__call__(request)
        signed.url = f"{signed.url}?limit=100"
        return signed


@pytest.mark.parametrize(
    ("signer", "why"),
    [
        (None, "Missing Authentication Token"),
        (Signer(key="stranger"), "Forbidden"),
        (Signer(service="s3"), "Forbidden"),
        (Signer(secret="a guess"), "does not match"),  # noqa: S106
        (OldSigner(), "Signature expired"),
        (Tamperer(), "does not match"),
    ],
)
def test_who_may_not_use_the_api_is_refused(stages: Stages, signer: AuthBase | None, why: str):
    """The URL asks for a caller's signature, as the template says; no function is called."""
    answer = stages.prod.call("GET", "jobs", auth=signer)
    assert answer.status_code == 403
    assert why in answer.json()["Message"]


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

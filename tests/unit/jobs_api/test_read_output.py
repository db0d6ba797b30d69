"""A job's output: as it is stored, or as a picture of the format that is asked for."""

import io

import pytest
from PIL import Image

from functions.jobs_api import app
from local.sample_media import make_image
from ml_service.domain.jobs import JobState
from ml_service.services import read_output
from tests.api_world import ApiWorld, submitted, succeeded
from tests.makers import JOB_ID, make_job

KEY = "comfyui-results/kite_1.png"
URL = f"/jobs/{JOB_ID}/output"


@pytest.fixture
def done(api: ApiWorld) -> ApiWorld:
    api.jobs.add(succeeded(KEY))
    api.results.files[KEY] = make_image(color=(200, 30, 30))
    return api


@pytest.mark.parametrize("accept", ["", "*/*", "image/png", "image/*", "image/webp;q=0.1, */*"])
def test_the_stored_file_is_where_the_answer_leads(done: ApiWorld, accept: str):
    answer = done.request("GET", URL, accept=accept)
    assert answer.status == 302
    assert answer.headers["Location"] == f"https://results/{KEY}?seconds=900"


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_a_picture_is_converted_to_what_is_accepted(done: ApiWorld, kind: str):
    answer = done.request("GET", URL, accept=f"image/{kind}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, f"image/{kind}")
    assert Image.open(io.BytesIO(answer.content)).format == kind.upper()


def test_a_jpeg_can_be_had_as_png(api: ApiWorld):
    key = "comfyui-results/kite_1.jpg"
    api.jobs.add(succeeded(key))
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(jpeg, "JPEG")
    api.results.files[key] = jpeg.getvalue()
    answer = api.request("GET", URL, accept="image/png")
    assert Image.open(io.BytesIO(answer.content)).format == "PNG"


@pytest.mark.parametrize(("low", "high"), [(0, 30), (30, 95)])
def test_quality_decides_the_size(monkeypatch: pytest.MonkeyPatch, low: int, high: int):
    sizes = []
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(noise, "PNG")
    for quality in (low, high):
        world = ApiWorld(quality=quality)
        services = world.make_jobs_api()
        monkeypatch.setattr(app, "make_jobs_api", lambda services=services: services)
        world.jobs.add(succeeded(KEY))
        world.results.files[KEY] = noise.getvalue()
        sizes.append(len(world.request("GET", URL, accept="image/jpeg").content))
    assert sizes[0] < sizes[1]


def test_a_role_chooses_among_several_files(api: ApiWorld):
    names = [f"kite_{size}_1.png" for size in ("608x1080", "608x418", "128x128")]
    api.jobs.add(succeeded(*(f"comfyui-results/{name}" for name in names)))
    for role, name in zip(("main", "cover", "thumbnail"), names, strict=True):
        location = api.request("GET", f"{URL}?role={role}").headers["Location"]
        assert name in location
    answer = api.request("GET", f"{URL}?role=mask")
    assert (answer.status, answer.json["code"]) == (404, "NO_OUTPUT")


@pytest.mark.parametrize(
    ("key", "accept"), [(KEY, "text/html"), ("comfyui-results/a.mp4", "image/png")]
)
def test_what_cannot_be_given_is_not_acceptable(api: ApiWorld, key: str, accept: str):
    api.jobs.add(succeeded(key))
    answer = api.request("GET", URL, accept=accept)
    assert (answer.status, answer.json["code"]) == (406, "NOT_ACCEPTABLE")


def test_a_job_that_is_not_done_has_no_output_yet(api: ApiWorld):
    api.jobs.add(submitted())
    answer = api.request("GET", URL)
    assert (answer.status, answer.json["code"]) == (409, "JOB_NOT_DONE")


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED])
def test_a_job_without_a_result_has_no_output(api: ApiWorld, state: JobState):
    api.jobs.add(make_job(state=state))
    answer = api.request("GET", URL)
    assert (answer.status, answer.json["code"]) == (404, "NO_OUTPUT")


def test_a_file_that_is_gone_is_told(done: ApiWorld):
    done.results.files.clear()
    answer = done.request("GET", URL, accept="image/webp")
    assert (answer.status, answer.json["code"]) == (404, "OUTPUT_MISSING")


def test_a_file_that_is_no_picture_is_not_acceptable(done: ApiWorld):
    done.results.files[KEY] = b"no picture"
    answer = done.request("GET", URL, accept="image/webp")
    assert (answer.status, answer.json["code"]) == (406, "OUTPUT_INVALID")


def test_a_picture_that_no_answer_can_hold_is_not_acceptable(
    done: ApiWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(read_output, "MAX_ANSWER_BYTES", 10)
    answer = done.request("GET", URL, accept="image/webp")
    assert (answer.status, answer.json["code"]) == (406, "OUTPUT_TOO_LARGE")

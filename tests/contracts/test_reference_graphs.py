"""The reference graphs on a ComfyUI server of one's own, which COMFYUI_URL names."""

import io
import os
import time
import uuid
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from local.check_workflows import check_workflows, fetch_definitions
from local.media_check import check_color, check_media
from local.sample_jobs import make_sample_job
from ml_service.adapters.comfyui import HttpComfyUI, HttpComfyUIConnector
from ml_service.domain.job_requests import read_job_request
from ml_service.domain.manifests import Workflow
from ml_service.domain.prompts import Prompt, PromptState
from ml_service.domain.rendering import render_prompt
from ml_service.domain.results import list_output_files
from ml_service.ports import MediaStream
from tests.makers import BUCKET, CATALOG, PROJECT

URL = os.environ.get("COMFYUI_URL", "")
COLOR = (200, 60, 40)
LONGEST_SECONDS = 100

pytestmark = pytest.mark.skipif(not URL, reason="COMFYUI_URL names no ComfyUI server")


def connect() -> HttpComfyUI:
    address = urlsplit(URL)
    return HttpComfyUIConnector(port=address.port or 80).connect(address.hostname or "")


def await_end(comfyui: HttpComfyUI, prompt_id: str) -> Prompt:
    end = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < end:
        prompt = comfyui.find(prompt_id)
        if prompt.state not in (PromptState.PENDING, PromptState.RUNNING):
            return prompt
        time.sleep(0.2)
    raise AssertionError(f"the prompt did not end within {LONGEST_SECONDS} s")


@pytest.mark.parametrize("workflow", list(CATALOG), ids=lambda workflow: workflow.workflow)
def test_a_reference_graph_runs_and_shows_its_input(workflow: Workflow):
    stored: dict[str, bytes] = {}
    job = make_sample_job(
        workflow,
        job_id=str(uuid.uuid4()),
        partial_name=str(uuid.uuid4()),
        bucket=BUCKET,
        stage="dev",
        at=datetime.now(UTC),
        color=COLOR,
        put_input=stored.__setitem__,
    )
    inputs = read_job_request(
        job.body, sqs_message_id="sqs", catalog=CATALOG, input_buckets=frozenset({BUCKET})
    ).inputs
    comfyui = connect()
    values = {**inputs.values, "seed": 7, "outputPrefix": inputs.output_prefix}
    for media in inputs.media:
        content = stored[media.key]
        stream = MediaStream(io.BytesIO(content), len(content))
        values[media.input] = comfyui.upload(media.upload_name, stream)
    prompt_id = str(uuid.uuid4())
    comfyui.submit(prompt_id, render_prompt(workflow, CATALOG.graph(workflow.workflow), values))
    prompt = await_end(comfyui, prompt_id)

    assert prompt.state is PromptState.SUCCEEDED, prompt.failure
    files = list_output_files(prompt.outputs)
    assert len(files) == max(1, len(workflow.outputs.roles))
    for file in files:
        assert file.filename.startswith(inputs.output_prefix)
        with comfyui.open_output(file) as content:
            facts = check_media(content.read(), kind=workflow.outputs.kind)
        if job.color is not None and "_mask" not in file.filename:
            check_color(facts, job.color)


def test_the_server_has_every_class_of_the_reference_graphs():
    reports = check_workflows(PROJECT / "workflows", definitions=fetch_definitions(URL))
    assert {report.path.name: report.faults for report in reports if report.faults} == {}

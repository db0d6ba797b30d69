"""The jobs API keeps what its own description promises, whatever schemathesis sends."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import pytest
import schemathesis
from schemathesis.engine import Status, events, from_schema
from werkzeug import Request

from functions.jobs_api import app
from local.sample_media import make_image
from ml_service.domain.jobs import JobState
from tests.api_world import ApiWorld, admitted, call_handler, submitted, succeeded
from tests.makers import make_instance, make_job

_KEY = "comfyui-results/kite_1.png"
_LEFT_OUT = [
    # Which workflows there are, and which inputs each takes, is not the description's to say.
    "positive_data_acceptance",
    # A job that was cancelled can still be looked at, as DELETE says in its answer.
    "use_after_free",
]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> ApiWorld:
    """A stage with a job in each state."""
    world = ApiWorld()
    world.store.instances["pulid", "i-a#1"] = make_instance(key="i-a#1")
    for job in (
        make_job(job_id="queued"),
        admitted(job_id="admitted"),
        submitted(job_id="submitted"),
        succeeded(_KEY, job_id="succeeded"),
        make_job(job_id="failed", state=JobState.FAILED),
    ):
        world.jobs.add(job)
    world.results.files[_KEY] = make_image(color=(200, 30, 30))
    services = world.make_jobs_api()
    monkeypatch.setattr(app, "make_jobs_api", lambda: services)
    return world


def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The handler as a WSGI application."""
    request = Request(environ)
    body = request.get_data()
    try:
        text: str | bytes = body.decode()
    except UnicodeDecodeError:
        text = body
    answer = call_handler(request.method, request.full_path, text, dict(request.headers))
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", [*answer.headers.items()])
    return [answer.content]


def test_schemathesis_finds_nothing(world: ApiWorld):
    """Every phase: limits of each parameter, random requests, and chains of requests."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", serve)
    schema.config.generation.update(max_examples=8, deterministic=True)
    schema.config.checks.update(excluded_check_names=_LEFT_OUT)
    cases, faults = 0, []
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            faults.append(str(event))
        if isinstance(event, events.ScenarioFinished):
            cases += len(event.recorder.cases)
            faults += [
                f"{event.recorder.label}: {check.failure_info.failure}"
                for checks in event.recorder.checks.values()
                for check in checks
                if check.status is Status.FAILURE and check.failure_info is not None
            ]

    assert "\n\n".join(sorted(set(faults))) == ""
    assert cases > 200

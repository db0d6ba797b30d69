"""jobs_api: jobs over HTTP, for whoever the function's URL lets in."""

import base64
import json
import random
import re
import uuid
from functools import cache
from typing import Annotated, Any, Final

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import LambdaFunctionUrlResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import (
    RequestUnsupportedContentType,
    RequestValidationError,
)
from aws_lambda_powertools.event_handler.openapi.params import Body, Header, Query
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

from ml_service.bootstrap import make_jobs_api
from ml_service.domain.api_models import (
    AcceptedJob,
    DroppedJobs,
    FleetList,
    Health,
    InstanceList,
    JobPage,
    JobView,
    Problem,
    PromptRequest,
    WarmUpAnswer,
    WorkflowList,
    WorkflowRequest,
)
from ml_service.domain.api_problems import explain_problem
from ml_service.domain.errors import MlServiceError, RequestError
from ml_service.domain.jobs import JobState
from ml_service.domain.manifests import RANDOM_SEEDS, OutputRole
from ml_service.domain.request_headers import hide_credentials

logger = Logger()
app = LambdaFunctionUrlResolver(enable_validation=True)

_JSON: Final = "application/json"
_WAITING: Final = (JobState.QUEUED,)
_RUNNING: Final = (JobState.ADMITTED, JobState.SUBMITTED)
_NOT_JSON: Final = RequestError(415, "UNSUPPORTED_MEDIA_TYPE", f"Send the body as {_JSON}.")
_PROBLEMS: Final = {
    400: "The request cannot be read.",
    404: "This stage has no such thing.",
    405: "The path has no such method.",
    406: "The output is not to be had in an accepted media type.",
    409: "The job's state does not allow it.",
    413: "The request is too large.",
    415: "The body is no JSON.",
    422: "The request is not valid.",
    500: "The service failed.",
    503: "The service cannot do it now.",
}


def _describe(model: type[BaseModel], *problems: int, status: int = 200) -> Any:
    """What a route answers, for OpenAPI."""
    described = {s: (_PROBLEMS[s], Problem) for s in (*problems, 405, 422, 500)}
    return {
        status: {"description": "Done.", "content": {_JSON: {"model": model}}},
        **{
            s: {"description": d, "content": {_JSON: {"model": m}}}
            for s, (d, m) in described.items()
        },
    }


@app.post(
    "/jobs",
    status_code=202,
    summary="Send a job",
    responses=_describe(AcceptedJob, 400, 413, 415, 503, status=202),
)
def accept_job(
    request: Annotated[WorkflowRequest | PromptRequest, Body()],
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="A repeat with the same key and body is the same job.",
            min_length=1,
            max_length=255,
        ),
    ] = None,
) -> AcceptedJob:
    """Take a job as the input queue takes a native message."""
    api = make_jobs_api()
    acceptance = api.acceptor.accept(
        # The text itself: what was parsed has lost what the queue refuses, as a member named twice.
        app.current_event.decoded_body or "",
        new_id=str(uuid.uuid4()),
        idempotency_key=idempotency_key,
        now=api.clock.now(),
        new_seed=lambda: random.randrange(RANDOM_SEEDS),
    )
    job = acceptance.job
    logger.info("job accepted", extra={"job_id": job.job_id, "fleet": job.fleet})
    if acceptance.lost_kick is not None:
        logger.warning(
            "admission not told", extra={"fleet": job.fleet}, exc_info=acceptance.lost_kick
        )
    return AcceptedJob(job_id=job.job_id, status=job.state)


@app.get("/jobs", summary="List jobs, the latest first", responses=_describe(JobPage, 400, 404))
def list_jobs(
    fleet: Annotated[str | None, Query(description="Of this fleet only.")] = None,
    status: Annotated[JobState | None, Query(description="In this state only.")] = None,
    cursor: Annotated[str | None, Query(description="The last answer's.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Most jobs in an answer.")] = 50,
) -> JobPage:
    """List the stage's jobs."""
    states = JobState if status is None else (status,)
    return make_jobs_api().list_jobs(fleet, states, limit=limit, cursor=cursor)


@app.get("/jobs/<job_id>", summary="Show a job", responses=_describe(JobView, 404))
def read_job(job_id: str) -> JobView:
    """Tell where a job stands; the URLs of its outputs are good for 15 minutes."""
    api = make_jobs_api()
    return api.reader.read(job_id, now=api.clock.now())


@app.delete("/jobs/<job_id>", summary="Cancel a job", responses=_describe(JobView, 404, 409))
def cancel_job(job_id: str) -> JobView:
    """Cancel a job that waits or runs, and no other."""
    api = make_jobs_api()
    api.canceller.cancel(api.reader.find(job_id).job_id)
    logger.info("job cancelled", extra={"job_id": job_id})
    return api.reader.read(job_id, now=api.clock.now())


@app.get(
    "/jobs/<job_id>/output",
    summary="Fetch an output of a job",
    responses={
        **_describe(Problem, 404, 406, 409),
        200: {
            "description": "The picture in the format that Accept asks for.",
            "content": {t: {} for t in ("image/jpeg", "image/png", "image/webp")},
        },
        302: {
            "description": "Location leads to the file as it is stored, for 15 minutes.",
            "content": {},
        },
    },
)
def read_output(
    job_id: str,
    role: Annotated[OutputRole, Query(description="Which of several files.")] = OutputRole.MAIN,
    accept: Annotated[str, Header(description="What media types are wanted.")] = "",
) -> Response[str | None]:
    """Lead to the file as it is stored, or convert a picture."""
    output = make_jobs_api().outputs.read(job_id, role=role, accept=accept)
    if output.url:
        return Response(status_code=302, headers={"Location": output.url})
    # Powertools would take bytes for text where it validates answers.
    text = base64.b64encode(output.content).decode()
    response: Response[str | None] = Response(
        status_code=200, content_type=output.content_type, body=text
    )
    response.base64_encoded = True
    return response


@app.get("/fleets", summary="Show the fleets", responses=_describe(FleetList))
def list_fleets() -> FleetList:
    """Tell what waits and what is free."""
    return FleetList(fleets=make_jobs_api().fleets.list_fleets())


@app.get(
    "/fleets/<fleet>/instances",
    summary="Show a fleet's instances and the files queued on each",
    responses=_describe(InstanceList, 404),
)
def list_instances(fleet: str) -> InstanceList:
    """List instances with this stage's jobs on them."""
    api = make_jobs_api()
    return InstanceList(instances=api.fleets.list_instances(api.require_fleet(fleet)))


@app.post(
    "/fleets/<fleet>/instances/<instance_id>/warm-up",
    status_code=202,
    summary="Have an instance warmed up",
    responses=_describe(WarmUpAnswer, 404, status=202),
)
def ask_warm_up(fleet: str, instance_id: str) -> WarmUpAnswer:
    """Begin an instance's warm-up, unless it is over or at work."""
    api = make_jobs_api()
    began = api.warm_ups.ask(api.require_fleet(fleet), instance_id, now=api.clock.now())
    logger.info(
        "warm-up asked for",
        extra={"fleet": fleet, "instance_id": instance_id, "has_begun": began},
    )
    return WarmUpAnswer(instance_id=instance_id, has_begun=began)


@app.delete(
    "/fleets/<fleet>/waiting-jobs",
    summary="Drop the jobs that wait for a fleet",
    responses=_describe(DroppedJobs, 404),
)
def drop_waiting_jobs(fleet: str) -> DroppedJobs:
    """Cancel this stage's jobs that wait, some at a time."""
    return _drop(fleet, _WAITING)


@app.delete(
    "/fleets/<fleet>/running-jobs",
    summary="Drop the jobs that are on a fleet's instances",
    responses=_describe(DroppedJobs, 404),
)
def drop_running_jobs(fleet: str) -> DroppedJobs:
    """Cancel this stage's jobs that have a place, some at a time."""
    return _drop(fleet, _RUNNING)


@app.get("/workflows", summary="List the workflows", responses=_describe(WorkflowList))
def list_workflows() -> WorkflowList:
    """List every workflow with the inputs that it takes."""
    return WorkflowList(workflows=make_jobs_api().list_workflows())


@app.get("/health", summary="Tell whether the stage answers", responses=_describe(Health))
def check_health() -> Health:
    """Answer, from a function that has all it needs to work."""
    return Health(status="ok", stage=make_jobs_api().stage)


@app.get("/openapi.json", include_in_schema=False)
def describe_api() -> Response[str]:
    """Give this API's own description."""
    return Response(status_code=200, content_type=_JSON, body=make_description())


@cache
def make_description() -> str:
    """The API as OpenAPI describes it."""
    return app.get_openapi_json_schema(title="ml-service jobs API", version="1")


def _drop(fleet: str, states: tuple[JobState, ...]) -> DroppedJobs:
    api = make_jobs_api()
    report = api.dropper.drop(api.require_fleet(fleet), states)
    logger.info("jobs dropped", extra={"fleet": fleet, "job_ids": report.job_ids})
    return DroppedJobs(job_ids=tuple(report.job_ids), is_complete=report.is_complete)


@app.exception_handler(MlServiceError)
def explain_error(error: MlServiceError) -> Response[str]:
    """Answer what the request met; what is no fault of its own is logged."""
    problem = explain_problem(error)
    if problem.status >= 500:
        logger.error("request failed", exc_info=error)
    return _answer(problem)


@app.exception_handler(RequestValidationError)
def explain_invalid_request(error: RequestValidationError) -> Response[str]:
    """Say what is wrong with a request, or that an answer of our own was."""
    fault = error.errors()[0]
    place = [str(part) for part in fault["loc"]]
    if place[0] == "response":
        logger.error("answer does not fit its description", extra={"place": place})
        return _answer(explain_problem(MlServiceError()))
    if place[0] == "body" and not _has_json():
        return _answer(_NOT_JSON)
    if fault["type"] == "json_invalid":
        return _answer(RequestError(400, "INVALID_JSON", "Send a body that is valid JSON."))
    sentence = f"Correct {'.'.join(place)}: {fault['msg']}."
    return _answer(RequestError(422, "INVALID_REQUEST", sentence))


@app.exception_handler(RequestUnsupportedContentType)
def explain_media_type(_: RequestUnsupportedContentType) -> Response[str]:
    """Name the one media type that is taken."""
    return _answer(_NOT_JSON)


@app.exception_handler(ValueError)
def explain_form(error: ValueError) -> Response[str]:
    """Refuse a form as any other media type: Powertools stumbles over one without a boundary."""
    return _fail(error) if _has_json() else _answer(_NOT_JSON)


@app.exception_handler(UnicodeDecodeError)
def explain_encoding(_: UnicodeDecodeError) -> Response[str]:
    """Name the one encoding that is taken."""
    return _answer(RequestError(400, "INVALID_ENCODING", "Send the body as UTF-8."))


@app.exception_handler(NotFoundError)
def explain_path(_: NotFoundError) -> Response[str]:
    """Tell a path that does not exist from one that does not know the method."""
    allowed = {
        method.upper()
        for path, operations in json.loads(make_description())["paths"].items()
        for method in operations
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), app.current_event.path)
    }
    if not allowed:
        return _answer(
            RequestError(404, "NOT_FOUND", "Use one of the paths that GET /openapi.json lists.")
        )
    methods = ", ".join(sorted(allowed))
    problem = RequestError(405, "METHOD_NOT_ALLOWED", f"Use one of these methods: {methods}.")
    return _answer(problem, Allow=methods)


@app.exception_handler(Exception)
def explain_failure(error: Exception) -> Response[str]:
    """Say that it is the service's fault, and nothing else."""
    return _fail(error)


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer a request to the function's URL."""
    if make_jobs_api().debug_header:
        logger.info(
            "request headers", extra={"headers": hide_credentials(event.get("headers", {}))}
        )
    return app.resolve(event, context)


def _has_json() -> bool:
    """Whether the request's body is JSON, as one of no media type is taken to be."""
    return app.current_event.headers.get("content-type", _JSON).startswith(_JSON)


def _fail(error: Exception) -> Response[str]:
    logger.error("request failed", exc_info=error)
    return _answer(explain_problem(MlServiceError()))


def _answer(problem: RequestError, **headers: str) -> Response[str]:
    body = Problem(code=problem.code, message=str(problem)).model_dump_json()
    return Response(status_code=problem.status, content_type=_JSON, body=body, headers=headers)

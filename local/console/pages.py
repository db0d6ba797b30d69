"""The pages that a browser sees on local mode's port."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from aiohttp import web
from botocore.exceptions import BotoCoreError, ClientError
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from local.aws.clients import AwsClients
from local.aws.gateway import PAGES_PATH
from local.console.read_form import FormError, FormValue, UploadedFile, list_fields, read_values
from local.console.read_stage import StageReader
from local.job_messages import make_message
from local.list_alarms import AlarmView, list_alarms
from local.local_deployment import LocalDeployment
from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.errors import JobNotFoundError, WorkflowError
from ml_service.domain.jobs import Job
from ml_service.domain.manifests import Workflow

_FOLDER: Final = Path(__file__).resolve().parent
_MOST_JOBS: Final = 200
_CHUNK_BYTES: Final = 256 * 1024
# The service takes inputs of 500 MB; a form may have three of them.
_UPLOAD_LIMIT: Final = 1600 * 1024 * 1024
# Only these are shown in the page; nothing else from a bucket may pose as a page of ours.
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".wav": "audio/wav",
    ".ogg": "audio/ogg",
}
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class _Stage:
    deployment: LocalDeployment
    clients: AwsClients
    reader: StageReader


@dataclass(frozen=True)
class MediaFile:
    """A file of a job that its page shows."""

    label: str
    key: str
    url: str

    @property
    def kind(self) -> str:
        """Image, video or audio, or other."""
        return _media_type(self.key).partition("/")[0].replace("application", "other")


class Console:
    """The console's application; it answers "not ready" until it is connected."""

    def __init__(self, workflows: Path) -> None:
        """Take the folder of the workflows; raises WorkflowError."""
        self._catalog = load_catalog(workflows)
        self._stage: _Stage | None = None
        self._templates = _make_templates()
        self.application = web.Application(middlewares=[_answer_while_stopping])
        self.application.on_response_prepare.append(_add_headers)
        self.application.add_routes(
            [
                web.get("/", self._show_fleets),
                web.get("/fleets", self._refresh_fleets),
                web.get("/jobs", self._show_jobs),
                web.get("/jobs/list", self._refresh_jobs),
                web.get("/jobs/{job_id}", self._show_job),
                web.get("/jobs/{job_id}/state", self._refresh_job),
                web.get("/jobs/{job_id}/{side:inputs|results}/{number:[0-9]+}", self._send_media),
                web.get("/alarms", self._show_alarms),
                web.get("/alarms/list", self._refresh_alarms),
                web.get("/submit", self._choose_workflow),
                web.get("/submit/{workflow}", self._show_form),
                web.post("/submit/{workflow}", self._submit),
                web.static("/static", _FOLDER / "static"),
            ]
        )

    def connect(self, deployment: LocalDeployment, clients: AwsClients) -> None:
        """Begin to show a stage."""
        self._stage = _Stage(deployment, clients, StageReader(deployment, clients))

    def _connected(self) -> _Stage:
        if self._stage is None:
            raise web.HTTPServiceUnavailable(text="local mode is starting")
        return self._stage

    def _render(self, template: str, *, status: int = 200, **values: object) -> web.Response:
        stage = self._connected().deployment.stage
        text = self._templates.get_template(template).render(stage=stage, **values)
        return web.Response(text=text, content_type="text/html", status=status)

    async def _show_fleets(self, _: web.Request) -> web.Response:
        fleets = await asyncio.to_thread(self._connected().reader.list_fleets)
        return self._render("fleets.html", fleets=fleets)

    async def _refresh_fleets(self, _: web.Request) -> web.Response:
        fleets = await asyncio.to_thread(self._connected().reader.list_fleets)
        return self._render("_fleets.html", fleets=fleets)

    async def _show_jobs(self, _: web.Request) -> web.Response:
        jobs = await asyncio.to_thread(self._connected().reader.list_jobs)
        return self._render("jobs.html", jobs=jobs[:_MOST_JOBS], total=len(jobs))

    async def _refresh_jobs(self, _: web.Request) -> web.Response:
        jobs = await asyncio.to_thread(self._connected().reader.list_jobs)
        return self._render("_jobs.html", jobs=jobs[:_MOST_JOBS], total=len(jobs))

    async def _show_alarms(self, _: web.Request) -> web.Response:
        return self._render("alarms.html", alarms=await self._list_alarms())

    async def _refresh_alarms(self, _: web.Request) -> web.Response:
        return self._render("_alarms.html", alarms=await self._list_alarms())

    async def _list_alarms(self) -> Sequence[AlarmView]:
        stage = self._connected()
        return await asyncio.to_thread(
            list_alarms, stage.clients.cloudwatch, stage.deployment.stage
        )

    async def _show_job(self, request: web.Request) -> web.Response:
        return await self._render_job("job.html", request)

    async def _refresh_job(self, request: web.Request) -> web.Response:
        return await self._render_job("_job.html", request)

    async def _render_job(self, template: str, request: web.Request) -> web.Response:
        job_id = request.match_info["job_id"]
        try:
            job = await self._get_job(job_id)
        except JobNotFoundError:
            # A message that was just sent has no record until it is dispatched.
            return self._render(template, job_id=job_id, job=None)
        return self._render(
            template,
            job_id=job_id,
            job=job,
            input_files=_list_inputs(job),
            result_files=_list_results(job),
        )

    async def _send_media(self, request: web.Request) -> web.StreamResponse:
        """Stream a job's file from its bucket; with ranges, so that a video can be wound."""
        job_id, number = request.match_info["job_id"], int(request.match_info["number"])
        try:
            job = await self._get_job(job_id)
            bucket, key = self._find_object(job, request.match_info["side"], number)
        except (JobNotFoundError, IndexError):
            raise web.HTTPNotFound(text="There is no such file.") from None
        get_object = partial(self._connected().clients.s3.get_object, Bucket=bucket, Key=key)
        if "Range" in request.headers:
            get_object = partial(get_object, Range=request.headers["Range"])
        try:
            answer = await asyncio.to_thread(get_object)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            return web.Response(status=status, text=error.response["Error"].get("Message", ""))
        response = web.StreamResponse(
            status=answer["ResponseMetadata"]["HTTPStatusCode"],
            headers={"Content-Type": _media_type(key), "Accept-Ranges": "bytes"},
        )
        response.content_length = answer["ContentLength"]
        if "ContentRange" in answer:
            response.headers["Content-Range"] = answer["ContentRange"]
        with answer["Body"] as body:
            await response.prepare(request)
            while chunk := await asyncio.to_thread(body.read, _CHUNK_BYTES):
                await response.write(chunk)
        await response.write_eof()
        return response

    def _find_object(self, job: Job, side: str, number: int) -> tuple[str, str]:
        if side == "results":
            return self._connected().deployment.result_bucket, job.result_keys[number]
        media = job.inputs.media if job.inputs else ()
        return media[number].bucket, media[number].key

    async def _choose_workflow(self, _: web.Request) -> web.Response:
        fleets = {
            fleet: [workflow for workflow in self._catalog if workflow.fleet == fleet]
            for fleet in self._connected().deployment.fleets
        }
        return self._render("choose_workflow.html", fleets=fleets)

    async def _show_form(self, request: web.Request) -> web.Response:
        return self._render_form(self._find_workflow(request))

    async def _submit(self, request: web.Request) -> web.Response:
        # A page of another site must not be able to send jobs from the browser of this machine.
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise web.HTTPForbidden(text="Only the console's own form may send a job.")
        workflow = self._find_workflow(request)
        form = _read_form(await request.clone(client_max_size=_UPLOAD_LIMIT).post())
        try:
            job_id = await asyncio.to_thread(self._send_message, workflow, form)
        except FormError as error:
            return self._render_form(workflow, error=str(error), sent=form, status=400)
        raise web.HTTPSeeOther(f"{PAGES_PATH}jobs/{job_id}")

    def _render_form(
        self,
        workflow: Workflow,
        *,
        error: str = "",
        sent: Mapping[str, FormValue] | None = None,
        status: int = 200,
    ) -> web.Response:
        return self._render(
            "form.html",
            workflow=workflow,
            fields=list_fields(workflow),
            error=error,
            sent={n: v for n, v in (sent or {}).items() if isinstance(v, str)},
            status=status,
        )

    def _find_workflow(self, request: web.Request) -> Workflow:
        try:
            return self._catalog.workflow(request.match_info["workflow"])
        except WorkflowError as error:
            raise web.HTTPNotFound(text=str(error)) from None

    async def _get_job(self, job_id: str) -> Job:
        return await asyncio.to_thread(self._connected().reader.get_job, job_id)

    def _send_message(self, workflow: Workflow, form: Mapping[str, FormValue]) -> str:
        """Send a job; its SQS message id is its job id, and leads to its refusal, too."""
        stage = self._connected()
        partial_name = str(uuid.uuid4())
        bucket = stage.deployment.input_bucket

        def put_input(key: str, content: IO[bytes]) -> None:
            stage.clients.s3.put_object(Bucket=bucket, Key=key, Body=content)

        values = read_values(workflow, form, folder=f"console/{partial_name}", put_input=put_input)
        body = make_message(
            workflow,
            values,
            job_id=None,
            partial_name=partial_name,
            bucket=bucket,
            stage=stage.deployment.stage,
            at=datetime.now(UTC),
        )
        queue_url = stage.deployment.input_queue_url
        sent = stage.clients.sqs.send_message(QueueUrl=queue_url, MessageBody=body)
        return sent["MessageId"]


def _make_templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["clock_time"] = _format_time
    templates.filters["seconds_since"] = _format_seconds
    templates.globals["base"] = PAGES_PATH.rstrip("/")
    return templates


def _format_time(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%H:%M:%S}"


def _format_seconds(end: datetime | None, start: datetime | None) -> str:
    return "" if end is None or start is None else f"{(end - start).total_seconds():.1f} s"


def _list_inputs(job: Job) -> list[MediaFile]:
    media = job.inputs.media if job.inputs else ()
    return [
        MediaFile(source.input, source.key, f"{PAGES_PATH}jobs/{job.job_id}/inputs/{number}")
        for number, source in enumerate(media)
    ]


def _list_results(job: Job) -> list[MediaFile]:
    return [
        MediaFile(PurePosixPath(key).name, key, f"{PAGES_PATH}jobs/{job.job_id}/results/{number}")
        for number, key in enumerate(job.result_keys)
    ]


def _media_type(key: str) -> str:
    return _MEDIA_TYPES.get(PurePosixPath(key).suffix.lower(), "application/octet-stream")


def _read_form(form: Mapping[str, Any]) -> dict[str, FormValue]:
    """Give the texts and files that were sent; a file field left empty is sent without a name."""
    values: dict[str, FormValue] = {}
    for name, value in form.items():
        if isinstance(value, str):
            values[name] = value
        elif isinstance(value, web.FileField) and value.filename:
            values[name] = UploadedFile(value.filename, value.file)
    return values


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


@web.middleware
async def _answer_while_stopping(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell a page that still refreshes itself that the account behind it is gone."""
    try:
        return await handler(request)
    except BotoCoreError as error:
        raise web.HTTPServiceUnavailable(
            text=f"the embedded AWS does not answer: {error}"
        ) from None

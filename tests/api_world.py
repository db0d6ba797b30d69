"""The jobs API on ports in memory, called as Lambda calls its handler."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from functions.jobs_api import app
from ml_service.adapters.pillow_images import PillowImageConverter
from ml_service.domain.jobs import Job, JobState
from ml_service.services.accept_job import AcceptJob
from ml_service.services.ask_warm_up import AskWarmUp
from ml_service.services.cancel_job import CancelJob
from ml_service.services.drop_jobs import DropJobs
from ml_service.services.finish_job import StepError
from ml_service.services.jobs_api import JobsApi
from ml_service.services.list_fleets import ListFleets
from ml_service.services.list_jobs import ListJobs
from ml_service.services.read_job import ReadJob
from ml_service.services.read_output import ReadOutput
from tests.fakes import (
    NOON,
    FakeClock,
    InMemoryAdmission,
    InMemoryConversionQueues,
    InMemoryFleetStore,
    InMemoryInstanceWarmer,
    InMemoryJobQueue,
    InMemoryJobStopper,
    InMemoryJobStore,
    InMemoryMediaStore,
    InMemoryPromptCanceller,
    InMemoryReplyTopic,
    InMemoryResultStore,
)
from tests.makers import BUCKET, CATALOG, FLEETS, make_finish_job, make_job

KITE = {"workflow": "text-to-image", "inputs": {"positive_prompt": "a red kite"}}
PLACE = {"instance": "i-a#1", "instance_id": "i-a", "address": "10.0.0.1"}


def admitted(**changes: Any) -> Job:
    return make_job(**changes).admit(**PLACE, at=NOON + timedelta(seconds=5))


def submitted(**changes: Any) -> Job:
    return admitted(**changes).submit(prompt_id="p", at=NOON + timedelta(seconds=6))


def succeeded(*keys: str, **changes: Any) -> Job:
    done = submitted(**changes).collect(keys)
    return done.close(JobState.SUCCEEDED, reply="{}", at=NOON + timedelta(seconds=30))


@dataclass(frozen=True)
class Answer:
    """What a client gets."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class ApiWorld:
    """A stage, and its API's handler."""

    jobs: InMemoryJobStore = field(default_factory=InMemoryJobStore)
    store: InMemoryFleetStore = field(default_factory=InMemoryFleetStore)
    topic: InMemoryReplyTopic = field(default_factory=InMemoryReplyTopic)
    admission: InMemoryAdmission = field(default_factory=InMemoryAdmission)
    canceller: InMemoryPromptCanceller = field(default_factory=InMemoryPromptCanceller)
    media: InMemoryMediaStore = field(default_factory=InMemoryMediaStore)
    conversions: InMemoryConversionQueues = field(default_factory=InMemoryConversionQueues)
    results: InMemoryResultStore = field(default_factory=InMemoryResultStore)
    stopper: InMemoryJobStopper = field(default_factory=InMemoryJobStopper)
    warmer: InMemoryInstanceWarmer = field(default_factory=InMemoryInstanceWarmer)
    clock: FakeClock = field(default_factory=FakeClock)
    queues: dict[str, InMemoryJobQueue] = field(
        default_factory=lambda: {name: InMemoryJobQueue() for name in FLEETS}
    )
    debug_header: bool = False
    quality: int = 90

    def __post_init__(self) -> None:
        finish = make_finish_job(self)

        def stop(job_id: str, run: int) -> Job:
            return finish.finish(job_id, run=run, error=StepError("ABORTED"), now=self.clock.now())

        self.stopper.then = stop

    def make_jobs_api(self) -> JobsApi:
        canceller = CancelJob(self.jobs, self.stopper)
        reader = ReadJob(CATALOG, self.jobs, self.store, self.results)
        return JobsApi(
            stage="prod",
            catalog=CATALOG,
            clock=self.clock,
            acceptor=AcceptJob(
                CATALOG, self.jobs, self.queues, self.admission, frozenset({BUCKET})
            ),
            reader=reader,
            lister=ListJobs(self.jobs),
            canceller=canceller,
            dropper=DropJobs(self.jobs, canceller),
            outputs=ReadOutput(reader, self.results, PillowImageConverter(), self.quality),
            fleets=ListFleets(FLEETS, self.queues, self.jobs, self.store),
            warm_ups=AskWarmUp(self.store, self.warmer),
            debug_header=self.debug_header,
        )

    def request(
        self,
        method: str,
        url: str,
        body: str | bytes | Mapping[str, Any] | None = None,
        **headers: str,
    ) -> Answer:
        """Call the handler; a header ``idempotency_key`` is Idempotency-Key."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return call_handler(
            method, url, json.dumps(body) if isinstance(body, Mapping) else body, named
        )


def call_handler(
    method: str, url: str, body: str | bytes | None, headers: Mapping[str, str]
) -> Answer:
    """Call jobs_api as a function URL does."""
    context = SimpleNamespace(
        function_name="jobs-api",
        memory_limit_in_mb=1024,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:jobs-api",
        aws_request_id="request-1",
    )
    event = make_event(method, url, body, headers)
    return read_answer(app.handler(event, context))  # type: ignore[arg-type]


def make_event(
    method: str, url: str, body: str | bytes | None, headers: Mapping[str, str]
) -> dict[str, Any]:
    """What a function URL makes of a request."""
    parts = urlsplit(url)
    return {
        "version": "2.0",
        "rawPath": parts.path,
        "rawQueryString": parts.query,
        "headers": {name.lower(): value for name, value in headers.items()},
        "queryStringParameters": dict(parse_qsl(parts.query, keep_blank_values=True)),
        "requestContext": {
            "stage": "$default",
            "http": {"method": method, "path": parts.path, "sourceIp": "127.0.0.1"},
        },
        "body": base64.b64encode(body).decode() if isinstance(body, bytes) else body,
        "isBase64Encoded": isinstance(body, bytes),
    }


def read_answer(answer: Mapping[str, Any]) -> Answer:
    """What a client gets of a handler's answer."""
    content = answer.get("body") or ""
    return Answer(
        status=answer["statusCode"],
        headers=answer["headers"],
        content=base64.b64decode(content) if answer.get("isBase64Encoded") else content.encode(),
    )

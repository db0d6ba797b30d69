"""Everything between the input queue and the reply topic, with what it logs and measures."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

from functions.dispatch_jobs import app
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.prompts import Prompt, PromptState
from ml_service.ports import MediaStore
from ml_service.services.await_prompt import AwaitPrompt
from ml_service.services.dispatch_jobs import DispatchJobs
from ml_service.services.finish_job import FinishJob, StepError
from ml_service.services.hand_off_video import HandOffVideo
from ml_service.services.submit_prompt import SubmitPrompt
from tests.fakes import (
    NOON,
    FakeClock,
    InMemoryAdmission,
    InMemoryComfyUI,
    InMemoryConnector,
    InMemoryConversionQueues,
    InMemoryFleetStore,
    InMemoryJobQueue,
    InMemoryJobStore,
    InMemoryMediaStore,
    InMemoryPromptCanceller,
    InMemoryRefusedMessages,
    InMemoryReplyTopic,
)
from tests.makers import (
    CATALOG,
    FLEETS,
    JOB_ID,
    PARTIAL_NAME,
    make_dispatch_jobs,
    make_instance,
)

PRIVATE_WORDS = "words of a person"
"""In every message; no log may have it."""
_ADDRESS = "10.0.0.1"
_SQS_ID = "0f9d8c7b-1111-4222-8333-944455566677"


class InputWorld:
    """One stage in memory. Messages go through the handler, so that its log is the real one."""

    def __init__(self, log: StringIO) -> None:
        self.log = log
        self.clock = FakeClock()
        self.jobs = InMemoryJobStore()
        self.queues = {name: InMemoryJobQueue() for name in FLEETS}
        self.refused = InMemoryRefusedMessages()
        self.topic = InMemoryReplyTopic()
        self.admission = InMemoryAdmission()
        self.media = InMemoryMediaStore()
        self.comfyui = InMemoryComfyUI()
        self.conversions = InMemoryConversionQueues()
        self.stores = {name: InMemoryFleetStore(name, make_instance("a")) for name in FLEETS}

    def make_dispatch(self) -> DispatchJobs:
        return make_dispatch_jobs(self)

    def deliver(
        self,
        *bodies: str,
        attributes: Mapping[str, Any] | None = None,
        at: datetime = NOON,
        new_id: Callable[[int], str] = lambda number: f"{_SQS_ID}-{number}",
    ) -> None:
        """Hand a batch to dispatch_jobs; none of it may come back."""
        self.clock.time = at
        records = [
            {"messageId": new_id(number), "body": body, "messageAttributes": attributes or {}}
            for number, body in enumerate(bodies)
        ]
        answer = app.handler({"Records": records}, _Context())
        assert answer == {"batchItemFailures": []}
        assert PRIVATE_WORDS not in self.log.getvalue()
        assert "Traceback" not in self.log.getvalue()

    @property
    def waiting(self) -> list[str]:
        """The bodies on the task queues."""
        return [m.body for queue in self.queues.values() for m in queue.visible]

    @property
    def replies(self) -> list[dict[str, str]]:
        return [json.loads(json.loads(reply)["data"]) for reply in self.topic.replies]

    def accept(self, body: str) -> Job:
        """The job of a message that is good."""
        before = set(self.jobs.jobs)
        self.deliver(body)
        assert self.replies == []
        assert self.refused.kept == []
        (job_id,) = self.jobs.jobs.keys() - before
        job = self.jobs.get(job_id)
        assert job.state is JobState.QUEUED
        assert body in self.waiting
        return job

    def refuse(self, body: str, *, answered: bool = True) -> tuple[str, str]:
        """Code and sentence for a message that is wrong: answered once, or kept with its code."""
        self.deliver(body)
        assert self.waiting == []
        if not answered:
            ((kept, code),) = self.refused.kept
            assert (kept, self.replies, self.jobs.jobs) == (body, [], {})
            return code, ""
        assert self.refused.kept == []
        (job,) = self.jobs.jobs.values()
        (reply,) = self.replies
        assert (job.state, job.published_at) == (JobState.FAILED, NOON)
        assert job.failure is not None
        assert reply == {"PartialName": job.partial_name, "Error": job.failure.sentence}
        assert PRIVATE_WORDS not in reply["Error"]
        return job.failure.code, job.failure.sentence

    def submit(self, job: Job, *, media: MediaStore | None = None) -> Job:
        """Place a queued job and bring its inputs and prompt to the instance."""
        key = "i-a#1"
        self.jobs.save(job.admit(instance=key, instance_id="i-a", address=_ADDRESS, at=NOON))
        return SubmitPrompt(
            stage="dev",
            catalog=CATALOG,
            jobs=self.jobs,
            store=self.stores[job.fleet],
            media=media or self.media,
            connector=InMemoryConnector({_ADDRESS: self.comfyui}),
            clock=self.clock,
        ).submit(job.job_id)

    def render(self, body: str) -> Mapping[str, Any]:
        """The graph that a good message's instance gets."""
        job = self.submit(self.accept(body))
        return self.comfyui.graphs[job.prompt_id]

    def await_outputs(self, job: Job, outputs: Mapping[str, Any]) -> Job:
        """Let a submitted job's prompt succeed with these outputs in its history."""
        self.comfyui.prompts[job.prompt_id] = Prompt(PromptState.SUCCEEDED, outputs=outputs)
        service = AwaitPrompt(
            FLEETS,
            self.jobs,
            self.stores[job.fleet],
            InMemoryConnector({_ADDRESS: self.comfyui}),
            self.clock,
        )
        service.await_prompt(job.job_id)
        return self.jobs.get(job.job_id)

    def finish(self, job: Job, error: Exception | None = None) -> Job:
        """Close a job, after an error as Step Functions hands it over."""
        step_error = None
        if error is not None:
            cause = json.dumps({"errorMessage": str(error), "errorType": type(error).__name__})
            step_error = StepError(type(error).__name__, cause)
        return FinishJob(
            CATALOG,
            self.jobs,
            self.stores[job.fleet],
            self.topic,
            self.admission,
            InMemoryPromptCanceller(),
            HandOffVideo(self.jobs, self.media, self.conversions),
            "results",
        ).finish(
            job.job_id,
            run=self.jobs.get(job.job_id).run,
            error=step_error,
            now=NOON + timedelta(minutes=1),
        )


def assert_failed(world: InputWorld, job: Job, error: Exception, code: str) -> None:
    """The error ends the job in one reply, under its code, and nothing ran for it."""
    closed = world.finish(job, error)
    assert closed.failure is not None
    assert (closed.state, closed.failure.code) == (JobState.FAILED, code)
    assert world.replies == [{"PartialName": PARTIAL_NAME, "Error": str(error)}]
    assert world.comfyui.graphs == {}
    assert closed.job_id == JOB_ID


class _Context:
    """What the logger reads of Lambda's context."""

    function_name = "dispatch-jobs"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:dispatch-jobs"
    aws_request_id = "request"

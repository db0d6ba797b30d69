import json

import pytest

from ml_service.domain.errors import JOB_ERRORS
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.results import OutputFile
from ml_service.services.finish_job import StepError, explain_error
from tests.fakes import (
    NOON,
    InMemoryAdmission,
    InMemoryConversionQueues,
    InMemoryFleetStore,
    InMemoryJobStore,
    InMemoryMediaStore,
    InMemoryPromptCanceller,
    InMemoryReplyTopic,
)
from tests.makers import (
    JOB_ID,
    PARTIAL_NAME,
    make_finish_job,
    make_instance,
    make_job,
)


class World:
    def __init__(self, job: Job, jobs: InMemoryJobStore | None = None) -> None:
        self.jobs = jobs or InMemoryJobStore(job)
        self.store = InMemoryFleetStore(
            job.fleet, make_instance("a", jobs=frozenset({JOB_ID, "other"}))
        )
        self.topic = InMemoryReplyTopic()
        self.admission = InMemoryAdmission()
        self.canceller = InMemoryPromptCanceller()
        self.media = InMemoryMediaStore()
        self.conversions = InMemoryConversionQueues()

    def finish(self, error: StepError | None = None) -> Job:
        return make_finish_job(self).finish(JOB_ID, run=1, error=error, now=NOON)

    def replies(self) -> list[dict[str, str]]:
        return [json.loads(json.loads(reply)["data"]) for reply in self.topic.replies]


def submitted(workflow: str = "flux-prompt") -> Job:
    job = make_job(workflow).admit(instance="i-a#1", instance_id="i-a", address="", at=NOON)
    return job.submit(prompt_id="p", at=NOON)


def error(name: str, message: str = "The input x does not exist.") -> StepError:
    return StepError(name, json.dumps({"errorMessage": message, "errorType": name}))


def test_a_job_with_results_succeeds_with_every_role():
    job = submitted("photo-make-up-lips-thumbnails")
    prefix = f"comfyui-results/{job.inputs.output_prefix}"
    keys = tuple(f"{prefix}{r}_00001_.png" for r in ("_608x1080", "_608x418", "_128x128", "_mask"))
    world = World(job.collect(keys))
    finished = world.finish()
    assert finished.state is JobState.SUCCEEDED
    assert world.replies() == [
        {
            "Bucket": "results",
            "PartialName": PARTIAL_NAME,
            "MainKey": keys[0],
            "CoverKey": keys[1],
            "ThumbnailKey": keys[2],
            "MaskKey": keys[3],
        }
    ]


def test_the_slot_comes_back_and_admission_is_told():
    world = World(submitted().collect(("k",)))
    world.finish()
    assert [set(i.jobs) for i in world.store.list_instances("pulid")] == [{"other"}]
    assert world.admission.kicked == ["pulid"]


def test_a_permanent_failure_gives_its_own_sentence():
    world = World(submitted())
    finished = world.finish(error("InputNotFoundError"))
    assert finished.state is JobState.FAILED
    assert finished.failure.code == "INPUT_NOT_FOUND"
    assert world.replies() == [
        {"PartialName": PARTIAL_NAME, "Error": "The input x does not exist."}
    ]


def test_an_unknown_error_tells_the_backend_nothing_of_itself():
    world = World(submitted())
    finished = world.finish(error("KeyError", "secret"))
    assert finished.failure.code == "INTERNAL_ERROR"
    assert "secret" not in world.topic.replies[0]


def test_what_lies_in_the_bucket_is_a_success_even_if_the_execution_broke():
    assert World(submitted().collect(("k",))).finish(StepError("FAILED")).state is (
        JobState.SUCCEEDED
    )


def test_a_second_finish_changes_and_publishes_nothing():
    world = World(submitted().collect(("k",)))
    first = world.finish()
    assert world.finish(error("PromptFailedError")) == first
    assert len(world.topic.replies) == 1


def test_a_reply_that_was_stored_but_not_sent_is_sent():
    world = World(submitted().close(JobState.FAILED, reply='{"data": "{}"}', at=NOON))
    assert world.finish().published_at == NOON
    assert len(world.topic.replies) == 1


def test_a_record_written_meanwhile_is_read_again():
    class Raced(InMemoryJobStore):
        raced = False

        def save(self, job):
            if not self.raced:
                self.raced = True
                super().save(self.get(JOB_ID).see_running())
            super().save(job)

    job = submitted()
    world = World(job, Raced(job))
    assert world.finish(error("PromptFailedError")).state is JobState.FAILED
    assert len(world.topic.replies) == 1


@pytest.mark.parametrize(
    ("name", "state", "code"),
    [
        ("TIMED_OUT", JobState.EXPIRED, "EXECUTION_TIMED_OUT"),
        ("ABORTED", JobState.CANCELLED, "EXECUTION_ABORTED"),
        ("FAILED", JobState.FAILED, "INTERNAL_ERROR"),
        ("States.Timeout", JobState.FAILED, "INTERNAL_ERROR"),
        ("DeadlineExceededError", JobState.EXPIRED, "DEADLINE_EXCEEDED"),
    ],
)
def test_each_end_has_its_state_and_code(name: str, state: JobState, code: str):
    found_state, failure = explain_error(StepError(name))
    assert (found_state, failure.code) == (state, code)


def test_every_permanent_error_has_a_code_of_its_own():
    codes = [error.code for error in JOB_ERRORS.values()]
    assert len(set(codes)) == len(codes) == len(JOB_ERRORS)


def test_a_prompt_that_is_left_behind_is_cancelled():
    world = World(submitted())
    finished = world.finish(StepError("ABORTED"))
    assert [prompt.prompt_id for prompt in finished.abandoned] == ["p"]
    assert world.canceller.asked == [JOB_ID]


def test_a_prompt_that_has_ended_is_not():
    job = submitted()
    world = World(job.list_outputs((OutputFile(filename="a.png"),)))
    world.finish(error("OutputMissingError"))
    assert world.canceller.asked == []


def test_an_execution_that_vanished_is_told_as_such():
    world = World(submitted())
    assert world.finish(StepError("EXECUTION_LOST")).failure.code == "EXECUTION_LOST"


@pytest.mark.parametrize(("result", "faults"), [(("comfyui-results/a.png",), 0), ((), 2)])
def test_only_a_success_clears_an_instance_of_its_faults(result, faults):
    world = World(submitted().collect(result))
    world.store = InMemoryFleetStore(
        world.jobs.get(JOB_ID).fleet, make_instance("a", jobs=frozenset({JOB_ID}), faults=2)
    )
    world.finish()
    (instance,) = world.store.list_instances(world.jobs.get(JOB_ID).fleet)
    assert (instance.jobs, instance.faults) == (frozenset(), faults)


@pytest.mark.parametrize("error", [None, StepError("ABORTED")], ids=["last step", "cleanup rule"])
@pytest.mark.parametrize("is_admitted", [False, True], ids=["waits", "runs"])
def test_the_end_of_a_run_does_nothing_to_the_next_one(error: StepError | None, is_admitted: bool):
    closed = submitted().close(JobState.CANCELLED, reply="first", at=NOON).mark_published(NOON)
    redriven = closed.redrive(NOON)
    if is_admitted:
        redriven = redriven.admit(instance="i-a#1", instance_id="i-a", address="", at=NOON)
    world = World(redriven)
    assert world.finish(error) == redriven
    assert world.jobs.get(JOB_ID) == redriven
    assert world.topic.replies == []
    assert [set(i.jobs) for i in world.store.list_instances("pulid")] == [{JOB_ID, "other"}]

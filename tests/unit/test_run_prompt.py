"""submit_prompt, await_prompt and collect_outputs, on one instance in memory."""

import io
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import pytest
from PIL import Image

from local.sample_media import make_image
from ml_service.adapters.pillow_images import PillowImageConverter
from ml_service.domain.errors import (
    DeadlineExceededError,
    InputNotFoundError,
    InputTooLargeError,
    InstanceSilentError,
    InstanceUnreachableError,
    JobClosedError,
    OutputInvalidError,
    OutputMissingError,
    PromptFailedError,
)
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.manifests import Conversion
from ml_service.domain.prompts import (
    NodeFailure,
    Progress,
    Prompt,
    PromptState,
    Stall,
    StallLimits,
)
from ml_service.domain.results import OutputFile
from ml_service.services.await_prompt import HOLD_LIMIT_SECONDS, Awaited, AwaitPrompt, AwaitStatus
from ml_service.services.collect_outputs import CollectOutputs
from ml_service.services.submit_prompt import SubmitPrompt
from tests.fakes import (
    NOON,
    FakeClock,
    InMemoryComfyUI,
    InMemoryConnector,
    InMemoryFleetStore,
    InMemoryJobStore,
    InMemoryMediaStore,
)
from tests.makers import BUCKET, CATALOG, FLEETS, JOB_ID, make_instance, make_job

ADDRESS = "10.0.0.1"


@dataclass
class World:
    job: Job
    comfyui: InMemoryComfyUI = field(default_factory=InMemoryComfyUI)
    media: InMemoryMediaStore = field(default_factory=InMemoryMediaStore)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.jobs = InMemoryJobStore(self.job)
        self.store = InMemoryFleetStore(self.job.fleet, make_instance("a"))
        self.connector = InMemoryConnector({ADDRESS: self.comfyui})
        self.comfyui.clock = self.clock

    def submit(self) -> Job:
        return SubmitPrompt(
            stage="dev",
            catalog=CATALOG,
            jobs=self.jobs,
            store=self.store,
            media=self.media,
            connector=self.connector,
            clock=self.clock,
        ).submit(JOB_ID)

    def await_prompt(self) -> Awaited:
        service = AwaitPrompt(FLEETS, self.jobs, self.store, self.connector, self.clock)
        return service.await_prompt(JOB_ID)

    def collect(self) -> Job:
        service = CollectOutputs(
            self.jobs, self.media, self.connector, PillowImageConverter(), self.clock
        )
        return service.collect(JOB_ID)

    def set_prompt(self, prompt: Prompt) -> None:
        self.comfyui.prompts["p"] = prompt

    def reading(self) -> int | None:
        return self.store.list_instances(self.job.fleet)[0].reading


def admitted(workflow: str = "flux-prompt") -> World:
    return World(
        make_job(workflow).admit(instance="i-a#1", instance_id="i-a", address=ADDRESS, at=NOON)
    )


def submitted(prompt: Prompt | None, **changes: object) -> World:
    job = admitted().job.submit(prompt_id="p", at=NOON).model_copy(update=changes)
    world = World(job)
    if prompt is not None:
        world.set_prompt(prompt)
    return world


SUCCEEDED = Prompt(
    PromptState.SUCCEEDED,
    outputs={"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}},
)


@pytest.mark.reference_graphs
def test_inputs_are_uploaded_and_the_graph_uses_the_names_they_got():
    world = admitted("photo-make-up-lips-thumbnails")
    world.media.inputs = {
        (BUCKET, "photos/face.png"): (face := make_image(color=(200, 0, 0))),
        (BUCKET, "photos/lips.png"): (lips := make_image(color=(0, 0, 200))),
    }
    names = {face: "renamed face", lips: "renamed lips"}
    world.comfyui.upload = lambda name, content: names[content.content.read()]
    job = world.submit()
    graph = world.comfyui.graphs[job.prompt_id]
    assert graph["1"]["inputs"]["image"] == "renamed face"
    assert graph["2"]["inputs"]["image"] == "renamed lips"
    assert graph["8"]["inputs"]["filename_prefix"] == f"{job.inputs.output_prefix}_608x1080"
    assert graph["14"]["inputs"]["value"] == job.seed
    assert job.state is JobState.SUBMITTED
    assert world.reading() == 1


def test_the_attempt_is_on_record_before_the_prompt_is_posted():
    world = admitted()
    seen = []
    post = world.comfyui.submit

    def submit(prompt_id, graph):
        seen.append(world.jobs.get(JOB_ID).prompt_id)
        post(prompt_id, graph)

    world.comfyui.submit = submit
    assert seen == []
    assert [world.submit().prompt_id] == seen


def test_fault_16_a_repeat_finds_the_prompt_and_posts_nothing():
    world = admitted()
    job = world.submit()
    assert world.submit() == job
    assert list(world.comfyui.graphs) == [job.prompt_id]


def test_a_repeat_after_a_crash_before_the_post_posts_it():
    world = admitted()
    job = world.submit()
    world.comfyui.graphs.clear()
    world.comfyui.prompts.clear()
    world.submit()
    assert list(world.comfyui.graphs) == [job.prompt_id]


def test_a_missing_input_fails_the_job_before_anything_is_posted():
    world = admitted("photo-make-up-lips-thumbnails")
    with pytest.raises(InputNotFoundError, match="input image does not exist"):
        world.submit()
    assert world.comfyui.graphs == {}


def test_an_unreachable_instance_is_no_longer_ready():
    world = admitted()
    world.comfyui.reachable = False
    with pytest.raises(InstanceUnreachableError):
        world.submit()
    assert world.reading() is None


def test_a_prompt_of_a_job_closed_meanwhile_is_cancelled():
    world = admitted()
    post = world.comfyui.submit

    def submit(prompt_id, graph):
        post(prompt_id, graph)
        job = world.jobs.get(JOB_ID)
        world.jobs.save(job.close(JobState.CANCELLED, reply="r", at=NOON))

    world.comfyui.submit = submit
    job = world.submit()
    assert world.comfyui.cancelled == [job.prompt_id]


def test_a_succeeded_prompt_leaves_its_files_in_the_record():
    world = submitted(SUCCEEDED)
    assert world.await_prompt().status is AwaitStatus.SUCCEEDED
    assert [file.filename for file in world.jobs.get(JOB_ID).outputs] == ["a.png"]
    assert world.reading() == 0


def test_a_running_prompt_is_held_until_it_is_done():
    world = submitted(Prompt(PromptState.RUNNING))
    world.comfyui.news = [lambda: None, lambda: world.set_prompt(SUCCEEDED)]
    awaited = world.await_prompt()
    assert awaited.status is AwaitStatus.SUCCEEDED
    assert awaited.job.seen_running


def test_a_hold_ends_in_time_for_the_functions_own_limit():
    world = submitted(Prompt(PromptState.RUNNING))
    assert world.await_prompt().status is AwaitStatus.RUNNING
    held = (world.clock.now() - NOON).total_seconds()
    assert HOLD_LIMIT_SECONDS <= held < HOLD_LIMIT_SECONDS + 10


def test_a_prompt_far_back_in_the_queue_is_not_held():
    world = submitted(Prompt(PromptState.PENDING, position=4))
    world.clock.sleep(3600 - 1)
    awaited = world.await_prompt()
    assert (awaited.status, awaited.wait_seconds) == (AwaitStatus.PENDING, 4 * 20 - 15)
    assert world.clock.now() == NOON + timedelta(seconds=3599)


def test_a_prompt_that_is_nowhere_twice_is_lost():
    world = submitted(None)
    assert world.await_prompt().status is AwaitStatus.LOST


def test_a_prompt_that_appears_at_the_second_look_is_not_lost():
    world = submitted(None)
    sleep = world.clock.sleep

    def sleep_and_finish(seconds):
        sleep(seconds)
        world.set_prompt(SUCCEEDED)

    world.clock.sleep = sleep_and_finish
    assert world.await_prompt().status is AwaitStatus.SUCCEEDED


def test_a_failed_prompt_fails_the_job_with_its_reason():
    failure = NodeFailure("3", "KSampler", "ValueError", "no such thing as 'a red kite'")
    world = submitted(Prompt(PromptState.FAILED, failure=failure))
    with pytest.raises(PromptFailedError) as raised:
        world.await_prompt()
    assert str(raised.value) == "Node 3 (KSampler) failed with ValueError."
    assert "kite" not in repr(failure)


def test_a_prompt_that_broke_on_its_instance_goes_elsewhere_and_counts_as_run():
    failure = NodeFailure("3", "KSampler", "torch.OutOfMemoryError", "no room for 'a red kite'")
    world = submitted(Prompt(PromptState.FAILED, failure=failure))
    awaited = world.await_prompt()
    assert (awaited.status, awaited.job.seen_running) == (AwaitStatus.LOST, True)
    assert awaited.job.fault == "Node 3 (KSampler) failed with torch.OutOfMemoryError."


def test_an_interrupted_prompt_fails_the_job():
    world = submitted(Prompt(PromptState.INTERRUPTED))
    with pytest.raises(PromptFailedError, match="interrupted"):
        world.await_prompt()


def test_a_second_copy_is_dropped_when_it_is_seen():
    world = submitted(Prompt(PromptState.RUNNING, copies=2))
    world.comfyui.news = [
        lambda: seen.append(world.comfyui.prompts["p"].copies),
        lambda: world.set_prompt(SUCCEEDED),
    ]
    seen: list[int] = []
    assert world.await_prompt().status is AwaitStatus.SUCCEEDED
    assert seen == [1]


def test_fault_24_an_instance_may_be_silent_for_a_minute():
    world = submitted(Prompt(PromptState.RUNNING))
    world.comfyui.silent_looks = 59 // 2
    world.comfyui.news = [lambda: None] * (59 // 2) + [lambda: world.set_prompt(SUCCEEDED)]
    assert world.await_prompt().status is AwaitStatus.SUCCEEDED


def test_an_instance_that_stays_silent_is_left():
    world = submitted(Prompt(PromptState.RUNNING))
    world.comfyui.silent_looks = 1000
    with pytest.raises(InstanceSilentError):
        world.await_prompt()
    assert world.clock.now() == NOON + timedelta(seconds=60)
    assert world.reading() is None


@pytest.mark.parametrize(
    ("prompt", "after", "stall"),
    [
        (Prompt(PromptState.RUNNING, head="p"), 1800, Stall.HUNG),
        (Prompt(PromptState.PENDING, position=1, head="o"), 1800, Stall.BLOCKED),
        (Prompt(PromptState.PENDING), 60, Stall.IDLE),
    ],
)
def test_a_prompt_in_a_stalled_queue_is_cancelled_and_lost(
    prompt: Prompt, after: float, stall: Stall
):
    world = submitted(prompt)
    while (awaited := world.await_prompt()).status is not AwaitStatus.LOST:
        assert world.comfyui.cancelled == []
    assert awaited.stall is stall
    assert timedelta(seconds=after) <= world.clock.now() - NOON < timedelta(seconds=after + 10)
    assert world.comfyui.cancelled == ["p"]
    assert world.reading() is None
    assert world.store.list_instances(world.job.fleet)[0].stalled_at is not None


def test_a_prompt_that_runs_longer_than_its_workflow_allows_an_attempt_is_tried_elsewhere():
    world = submitted(Prompt(PromptState.RUNNING, head="p"), attempt_seconds=20)
    awaited = world.await_prompt()
    assert (awaited.status, awaited.stall) == (AwaitStatus.LOST, Stall.HUNG)
    assert timedelta(seconds=20) <= world.clock.now() - NOON < timedelta(seconds=30)


def test_a_queue_whose_head_changes_has_not_stalled():
    world = submitted(Prompt(PromptState.PENDING, position=1, head="0"), run_deadline=None)
    for number in range(10):
        world.set_prompt(Prompt(PromptState.PENDING, position=1, head=str(number)))
        assert world.await_prompt().status is AwaitStatus.PENDING
    assert world.clock.now() > NOON + timedelta(seconds=StallLimits().running)


def test_a_job_past_its_deadline_has_its_prompt_cancelled():
    world = submitted(
        Prompt(PromptState.RUNNING), run_deadline=NOON + timedelta(seconds=5), run_seconds=5
    )
    with pytest.raises(DeadlineExceededError):
        world.await_prompt()
    assert world.comfyui.cancelled == ["p"]


def test_a_prompt_that_ended_just_past_the_deadline_still_counts():
    world = submitted(SUCCEEDED, run_deadline=NOON - timedelta(seconds=1))
    assert world.await_prompt().status is AwaitStatus.SUCCEEDED


def test_outputs_are_stored_under_their_keys_with_their_type():
    world = submitted(SUCCEEDED)
    world.comfyui.files = {"a.png": b"picture"}
    world.await_prompt()
    assert world.collect().result_keys == ("comfyui-results/a.png",)
    assert world.media.results == {"comfyui-results/a.png": (b"picture", "image/png")}


def test_a_missing_output_fails_the_job():
    world = submitted(SUCCEEDED)
    world.await_prompt()
    with pytest.raises(OutputMissingError):
        world.collect()


def test_an_input_larger_than_its_manifest_allows_is_refused_before_it_is_uploaded():
    world = admitted("latent-sync")
    limited = [media.model_copy(update={"max_bytes": 4}) for media in world.job.inputs.media]
    inputs = world.job.inputs.model_copy(update={"media": tuple(limited)})
    world.jobs.jobs[JOB_ID] = world.job.model_copy(update={"inputs": inputs})
    world.media.inputs[BUCKET, "videos/7/clip.mp4"] = b"12345"
    with pytest.raises(InputTooLargeError, match="larger than 4 bytes"):
        world.submit()
    assert world.comfyui.uploads == {}


def converted(*files: OutputFile) -> World:
    conversion = Conversion(format="jpeg")
    return submitted(Prompt(PromptState.SUCCEEDED), outputs=files, conversion=conversion)


def test_pictures_are_stored_in_the_manifests_format_and_other_files_as_they_are():
    world = converted(OutputFile(filename="a_1_.png"), OutputFile(filename="b.mp4"))
    world.comfyui.files = {"a_1_.png": make_image(color=(200, 10, 10)), "b.mp4": b"video"}
    keys = ("comfyui-results/a_1_.jpeg", "comfyui-results/b.mp4")
    assert world.collect().result_keys == keys
    content, content_type = world.media.results[keys[0]]
    assert content_type == "image/jpeg"
    assert Image.open(io.BytesIO(content)).format == "JPEG"
    assert world.media.results[keys[1]] == (b"video", "video/mp4")


def test_a_picture_that_has_the_format_is_not_encoded_again():
    world = converted(OutputFile(filename="a.jpg"))
    world.comfyui.files["a.jpg"] = b"as it is"
    assert world.collect().result_keys == ("comfyui-results/a.jpg",)
    assert world.media.results["comfyui-results/a.jpg"] == (b"as it is", "image/jpeg")


def test_two_pictures_that_would_become_one_are_refused():
    world = converted(OutputFile(filename="a.png"), OutputFile(filename="a.webp"))
    with pytest.raises(OutputInvalidError, match="same name but for their formats"):
        world.collect()


def test_an_output_that_is_no_picture_is_refused_when_it_is_to_be_converted():
    world = converted(OutputFile(filename="a.png"))
    world.comfyui.files["a.png"] = b"\x89PNG\r\n\x1a\n and then nothing"
    with pytest.raises(OutputInvalidError, match="no picture that can be stored as jpeg"):
        world.collect()


def test_fault_27_an_output_is_asked_for_three_times():
    world = submitted(SUCCEEDED)
    world.await_prompt()
    sleep = world.clock.sleep

    def sleep_and_find(seconds):
        sleep(seconds)
        world.comfyui.reachable = seconds == 3.0
        world.comfyui.files = {"a.png": b"picture"}

    world.clock.sleep = sleep_and_find
    assert world.collect().result_keys == ("comfyui-results/a.png",)
    assert world.clock.now() == NOON + timedelta(seconds=1 + 3)


def test_a_collected_prompt_is_forgotten_by_its_instance_and_no_other():
    world = submitted(SUCCEEDED)
    world.comfyui.files = {"a.png": b"picture"}
    world.await_prompt()
    world.comfyui.prompts["other"] = SUCCEEDED
    world.collect()
    assert set(world.comfyui.prompts) == {"other"}


def test_a_prompt_that_cannot_be_collected_is_kept_for_another_try():
    world = submitted(SUCCEEDED)
    world.await_prompt()
    with pytest.raises(OutputMissingError):
        world.collect()
    assert set(world.comfyui.prompts) == {"p"}


@pytest.mark.parametrize("step", [World.submit, World.await_prompt, World.collect])
def test_no_step_works_on_a_closed_job(step):
    world = World(admitted().job.close(JobState.EXPIRED, reply="r", at=NOON))
    with pytest.raises(JobClosedError):
        step(world)


def test_progress_is_noted_now_and_then_while_a_prompt_runs():
    """Every write costs, and every second one would bring news of the same node."""
    world = submitted(Prompt(PromptState.RUNNING))
    noted = []

    def hear(nodes: int) -> None:
        noted.append(world.jobs.get(JOB_ID).progress)
        world.comfyui.progress = Progress(nodes_done=nodes)

    world.comfyui.news = [partial(hear, nodes) for nodes in range(1, 7)]
    world.comfyui.news.append(lambda: world.set_prompt(SUCCEEDED))
    assert world.await_prompt().status is AwaitStatus.SUCCEEDED
    # Looks are two seconds apart, so notes are six.
    assert noted == [None, None, None, *[Progress(nodes_done=3)] * 3]
    job = world.jobs.get(JOB_ID)
    assert Job.model_validate_json(job.model_dump_json()).progress == Progress(nodes_done=6)


def test_progress_of_a_prompt_that_was_not_seen_running_is_not_noted():
    world = submitted(Prompt(PromptState.PENDING))
    world.comfyui.progress = Progress(nodes_done=1)
    world.await_prompt()
    assert world.jobs.get(JOB_ID).progress is None

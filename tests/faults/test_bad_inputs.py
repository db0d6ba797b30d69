"""Bad inputs on the input queue, row by row: tests/faults/rows.yaml says what each row is."""

import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws
from typer.testing import CliRunner

from functions.dispatch_jobs import app
from local.sample_media import make_image, make_video
from local.workflow_commands import app as workflow_commands
from ml_service.adapters import s3
from ml_service.adapters.pillow_images import PillowImageConverter
from ml_service.adapters.s3 import S3MediaStore
from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.errors import (
    InputForbiddenError,
    InputNotFoundError,
    InputTooLargeError,
    JobError,
    OutputInvalidError,
    OutputTooLargeError,
    UnsupportedMediaError,
    WorkflowError,
)
from ml_service.domain.hand_offs import HandOffState
from ml_service.domain.jobs import Job, JobState
from ml_service.domain.media import MAX_INPUT_BYTES
from ml_service.domain.results import OutputFile
from ml_service.ports import MediaStream
from ml_service.services.admit_jobs import AdmitJobs
from ml_service.services.collect_outputs import CollectOutputs
from ml_service.services.refresh_registry import RefreshRegistry
from tests.fakes import (
    NOON,
    FakeClock,
    InMemoryAdmission,
    InMemoryConnector,
    InMemoryFleetStore,
    InMemoryInstancePool,
    InMemoryInstanceProbe,
    InMemoryInstanceWarmer,
    InMemoryJobQueue,
    InMemoryJobRunner,
)
from tests.faults.input_world import PRIVATE_WORDS, InputWorld, assert_failed
from tests.makers import (
    BUCKET,
    CATALOG,
    FLEETS,
    JOB_ID,
    PARTIAL_NAME,
    PROJECT,
    make_convert_info,
    make_instance,
    make_payload,
)

OTHER_NAME = PARTIAL_NAME.replace("0", "1")
FILES = {
    "InputS3Key": "in/photo.png",
    "VideoS3Key": "in/clip.mp4",
    "AudioS3Key": "in/voice.mp3",
    "SourceS3Keys": ["in/source.png"],
    "SourceS3Key": "in/source.png",
    "MaskS3Key": "in/mask.png",
    "SourceVideoS3Key": "in/drive.mp4",
    "SourceAudioS3Key": "in/speech.mp3",
}
PICTURE = make_image(color=(1, 2, 3))
VIDEO = make_video(color=(1, 2, 3), seconds=0.2)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[InputWorld]:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "test")
    log = StringIO()
    made = InputWorld(log)
    monkeypatch.setattr(app, "make_dispatch_jobs", made.make_dispatch)
    monkeypatch.setattr(app, "make_clock", lambda: made.clock)
    before = app.logger.registered_handler.setStream(log)
    yield made
    app.logger.registered_handler.setStream(before)


def make_message(workflow: str = "flux-prompt", *, omit: str = "", **members: Any) -> str:
    """A good message of any workflow, but for the members given, or the one left out."""
    payload = {**make_payload(), "PromptText": PRIVATE_WORDS, **FILES, **members}
    payload.pop(omit, None)
    return wrap(json.dumps(payload), Subject=CATALOG.workflow(workflow).subjects[0])


def wrap(payload: Any, *, omit: str = "", **changes: Any) -> str:
    envelope = {
        "Subject": "ComfyUiFluxPromptMessage",
        "MessageId": JOB_ID,
        "Payload": payload,
        "Timestamp": "2026-11-21T12:00:00Z",
        **changes,
    }
    envelope.pop(omit, None)
    return json.dumps(envelope)


@pytest.mark.parametrize("body", ["", "no JSON", make_message()[:-5], "{", "\x00"])
def test_input_01_what_is_no_json_is_kept_with_its_code(world: InputWorld, body: str):
    assert world.refuse(body, answered=False)[0] == "INVALID_JSON"


def test_input_01_a_byte_order_mark_is_stripped(world: InputWorld):
    assert world.accept("\ufeff" + make_message()).job_id == JOB_ID


@pytest.mark.parametrize("value", ["[]", '"text"', "3", "null", "true", "[1, 2]"])
@pytest.mark.parametrize("place", ["message", "payload"])
def test_input_02_only_an_object_is_a_message_or_payload(world: InputWorld, value: str, place: str):
    body = value if place == "message" else wrap(value)
    assert world.refuse(body, answered=False)[0] == "INVALID_MESSAGE"


@pytest.mark.parametrize(
    "body",
    [
        '{"Subject": "ComfyUiMusicGenMessage", ' + make_message()[1:],
        wrap('{"PromptText": "other", ' + json.dumps(make_payload())[1:]),
        wrap('{"Extra": {"a": 1, "a": 2}, ' + json.dumps(make_payload())[1:]),
    ],
)
def test_input_03_a_member_that_is_there_twice_is_refused(world: InputWorld, body: str):
    assert world.refuse(body)[0] == "INVALID_JSON"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e999"])
def test_input_04_a_number_that_is_none_is_refused(world: InputWorld, number: str):
    payload = f'{{"GroupId": 42, "Extra": {number}, ' + json.dumps(make_payload(GroupId=None))[1:]
    assert world.refuse(wrap(payload))[0] == "INVALID_JSON"


@pytest.mark.parametrize(
    ("digits", "answered", "codes"),
    [(5_000, False, {"INVALID_JSON"}), (400, True, {"INVALID_MESSAGE"})],
)
def test_input_04_an_integer_of_thousands_of_digits_is_refused(
    world: InputWorld, digits: int, answered: bool, codes: set[str]
):
    payload = f'{{"GroupId": {"9" * digits}, ' + json.dumps(make_payload(GroupId=None))[1:]
    assert world.refuse(wrap(payload), answered=answered)[0] in codes


@pytest.mark.parametrize(
    "nest", ["[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000]
)
@pytest.mark.parametrize("place", ["message", "payload"])
def test_input_05_deep_nesting_is_refused(world: InputWorld, nest: str, place: str):
    members = f'{{"Extra": {nest}, '
    body = (
        members + make_message()[1:]
        if place == "message"
        else wrap(members + json.dumps(make_payload())[1:])
    )
    assert world.refuse(body, answered=False)[0] == "INVALID_JSON"


@pytest.mark.parametrize(
    "extra",
    [{f"k{n}": n for n in range(100_000)}, "x" * 262_144, "é" * 131_072],
    ids=["100,000 keys", "over 256 KiB", "over 256 KiB of UTF-8"],
)
def test_input_05_a_body_that_is_too_large_is_refused(world: InputWorld, extra: Any):
    envelope = {**json.loads(make_message()), "Extra": extra}
    assert world.refuse(json.dumps(envelope, ensure_ascii=False))[0] == "TOO_LARGE"


@pytest.mark.parametrize(
    "subject",
    ["", "Unknown", "comfyuifluxpromptmessage", " ComfyUiFluxPromptMessage ", None, 3, ["x"]],
)
def test_input_06_a_subject_that_is_not_one_is_refused(world: InputWorld, subject: Any):
    body = wrap(json.dumps(make_payload()), Subject=subject)
    assert world.refuse(body)[0] == "UNKNOWN_SUBJECT"


def test_input_06_a_message_without_a_subject_is_refused(world: InputWorld):
    body = wrap(json.dumps(make_payload()), omit="Subject")
    assert world.refuse(body)[0] == "UNKNOWN_SUBJECT"


@pytest.mark.parametrize("payload", [None, "", "  "])
def test_input_07_a_message_without_a_payload_is_kept(world: InputWorld, payload: str | None):
    assert world.refuse(wrap(payload), answered=False)[0] == "INVALID_MESSAGE"


def test_input_07_a_message_whose_payload_is_left_out_is_kept(world: InputWorld):
    assert world.refuse(wrap("", omit="Payload"), answered=False)[0] == "INVALID_MESSAGE"


def test_input_07_a_payload_must_be_a_string(world: InputWorld):
    assert world.refuse(wrap(make_payload()))[0] == "INVALID_MESSAGE"


def test_input_08_unknown_members_are_ignored(world: InputWorld):
    envelope = {**json.loads(make_message(Extra={"a": [1]})), "Extra": [{"b": None}]}
    job = world.accept(json.dumps(envelope))
    assert job.inputs is not None
    assert set(job.inputs.values) == {"promptText"}


REQUIRED = {
    "latent-sync": ["VideoS3Key", "AudioS3Key"],
    "latent-sync-text": ["VideoS3Key"],
    "sonic-text": ["InputS3Key"],
    "sonic-audio": ["InputS3Key", "AudioS3Key"],
    "video-live-portrait": ["InputS3Key", "SourceAudioS3Key"],
    "flux-photo-prompt": ["InputS3Key"],
    "flux-photo-redux-style": ["InputS3Key", "SourceS3Keys"],
    "photo-make-up-lips-thumbnails": ["InputS3Key", "SourceS3Keys"],
    "photo-ace-plus": ["InputS3Key", "SourceS3Key"],
    "music-gen": ["InputS3Key"],
}
KEYS = [(workflow, member) for workflow, members in REQUIRED.items() for member in members]


@pytest.mark.parametrize("value", ["missing", None, " ", 12, True, {"a": 1}])
@pytest.mark.parametrize(("workflow", "member"), KEYS)
def test_input_09_a_required_file_is_missed_by_its_name(
    world: InputWorld, workflow: str, member: str, value: Any
):
    body = (
        make_message(workflow, omit=member)
        if value == "missing"
        else make_message(workflow, **{member: value})
    )
    code, sentence = world.refuse(body)
    assert code == "INVALID_MESSAGE"
    assert member in sentence


@pytest.mark.parametrize(
    ("member", "value"),
    [("GroupId", v) for v in (None, " ", "12", True, 1.5, 2**63, -1, [3])]
    + [("S3Bucket", v) for v in (None, " ", 3, ["inputs"])]
    + [("PromptText", v) for v in (3, ["a"], {"a": 1})]
    + [("PartialName", "no uuid")],
)
def test_input_09_a_required_value_is_missed_by_its_name(
    world: InputWorld, member: str, value: Any
):
    code, sentence = world.refuse(make_message("flux-photo-prompt", **{member: value}))
    assert code == "INVALID_MESSAGE"
    assert member in sentence


@pytest.mark.parametrize("value", [None, "", 12, True])
def test_input_09_without_a_partial_name_nobody_can_be_told(world: InputWorld, value: Any):
    body = make_message(PartialName=value)
    assert world.refuse(body, answered=False)[0] == "INVALID_MESSAGE"


def test_input_10_the_sqs_message_id_stands_in_for_a_missing_message_id(world: InputWorld):
    job = world.accept(wrap(json.dumps(make_payload()), omit="MessageId"))
    ((message_id, attributes),) = [
        (m.message_id, m.attributes) for m in world.queues[job.fleet].visible
    ]
    assert job.job_id == message_id
    assert attributes == {"JobId": {"DataType": "String", "StringValue": job.job_id}}


def test_input_11_of_two_admitters_one_takes_the_last_slot(world: InputWorld):
    class RacedStore(InMemoryFleetStore):
        """Another admission takes the slot between this one's look and its grab."""

        def take_slot(self, fleet, key, job_id, *, slots, at):
            super().take_slot(fleet, key, "the other's job", slots=slots, at=at)
            return super().take_slot(fleet, key, job_id, slots=slots, at=at)

    job = world.accept(make_message())
    queue = world.queues[job.fleet]
    store = RacedStore(job.fleet, make_instance("a"))
    runner = InMemoryJobRunner()
    make_admit_jobs(world, job.fleet, queue, store, runner).admit(job.fleet)
    assert [set(i.jobs) for i in store.list_instances(job.fleet)] == [{"the other's job"}]
    assert [m.receipt for m in queue.visible] != []
    assert (queue.hidden, runner.started) == ({}, [])
    assert world.jobs.get(JOB_ID).state is JobState.QUEUED


def make_admit_jobs(
    world: InputWorld,
    fleet: str,
    queue: InMemoryJobQueue,
    store: InMemoryFleetStore,
    runner: InMemoryJobRunner,
) -> AdmitJobs:
    return AdmitJobs(
        fleets={fleet: FLEETS[fleet].model_copy(update={"slots_per_instance": 1})},
        task_queues={fleet: queue},
        jobs=world.jobs,
        store=store,
        registry=RefreshRegistry(
            store, InMemoryInstancePool({}), InMemoryInstanceProbe(), InMemoryInstanceWarmer()
        ),
        runner=runner,
        admission=InMemoryAdmission(),
        clock=FakeClock(),
    )


BAD_KEYS = [
    "/in/photo.png",
    "in/../../photo.png",
    "../photo.png",
    "in/pho\0to.png",
    "in/pho\nto.png",
    "in/photo.png?versionId=1",
    "in/pho\\to.png",
    "in/" + "x" * 1018 + ".png",
    "in/\ud800.png",
]


@pytest.mark.parametrize("key", BAD_KEYS)
@pytest.mark.parametrize("member", ["InputS3Key", "SourceS3Key", "SourceS3Keys"])
def test_input_12_a_key_that_leads_elsewhere_is_refused(world: InputWorld, member: str, key: str):
    workflow = "photo-ace-plus" if member == "SourceS3Key" else "photo-make-up-lips-thumbnails"
    value = [key] if member == "SourceS3Keys" else key
    code, sentence = world.refuse(make_message(workflow, **{member: value}))
    assert code == "INVALID_MESSAGE"
    assert sentence == f"{member} is not an S3 key that can be used."


@pytest.mark.parametrize("bucket", ["others", "inputs.evil", "INPUTS", "arn:aws:s3:::inputs"])
@pytest.mark.parametrize(
    ("workflow", "member"),
    [
        ("flux-photo-prompt", "S3Bucket"),
        ("latent-sync", "AudioS3Bucket"),
        ("photo-make-up-lips-thumbnails", "SourceS3Bucket"),
        ("photo-ace-plus", "SourceS3Bucket"),
        ("video-live-portrait", "SourceAudioS3Bucket"),
    ],
)
def test_input_12_another_bucket_than_the_allowed_is_refused(
    world: InputWorld, workflow: str, member: str, bucket: str
):
    code, sentence = world.refuse(make_message(workflow, **{member: bucket}))
    assert code == "FORBIDDEN_SOURCE"
    assert member in sentence
    assert bucket not in sentence


@pytest.mark.parametrize("key", ["photo", "photo.gif", "photo.png/", "photo.png ", ".png", "a.svg"])
def test_input_13_a_key_without_an_accepted_extension_is_refused(world: InputWorld, key: str):
    code, _ = world.refuse(make_message("flux-photo-prompt", InputS3Key=f"in/{key}"))
    assert code == "UNSUPPORTED_MEDIA"


PLACEHOLDERS = """{
  "3": {"class_type": "RandomNoise", "inputs": {"noise_seed": ___seed___}},
  "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "___promptText___"}},
  "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "___outputPrefix___"}}
}"""


@pytest.fixture(params=["bindings", "placeholders"])
def prompts(request: pytest.FixtureRequest, world: InputWorld, tmp_path: Path, monkeypatch: Any):
    """Renders a text into flux-prompt's graph: its own, or a user's file with placeholders."""
    if request.param == "placeholders":
        folder = tmp_path / "pulid"
        folder.mkdir()
        (folder / "flux-prompt.json").write_text(PLACEHOLDERS)
        manifest = PROJECT / "workflows" / "pulid" / "flux-prompt.yaml"
        (folder / "flux-prompt.yaml").write_text(manifest.read_text())
        monkeypatch.setattr("tests.faults.input_world.CATALOG", load_catalog(tmp_path))

    return lambda text: world.render(make_message(PromptText=text))


def find_texts(graph: Any, text: str) -> list[tuple[str, str]]:
    """Where in a graph exactly this text stands."""
    return [
        (node_id, name)
        for node_id, node in graph.items()
        for name, value in node["inputs"].items()
        if value == text
    ]


@pytest.mark.parametrize(
    "text",
    [
        'say "hi" and \\ and \\"',
        '"}}, "9": {"class_type": "SaveImage", "inputs": {}}, "x": {"a": "',
        "C:\\new\\table",
    ],
)
def test_input_14_quotes_and_braces_stay_text_in_one_graph(prompts: Any, text: str):
    graph = prompts(text)
    assert len(find_texts(graph, text)) == 1
    assert set(json.loads(json.dumps(graph))) == set(graph)
    assert all(set(node) <= {"class_type", "inputs", "_meta"} for node in graph.values())


def test_input_14_line_ends_become_blanks(prompts: Any):
    assert len(find_texts(prompts("a\nb\r\n\tc"), "a b c")) == 1


@pytest.mark.parametrize(
    "text",
    ["___seed___", "a ___outputPrefix___ b", "{{seed}}", "${x}", "$.Task", "{prefix} %s %seed%"],
)
def test_input_15_a_text_is_not_expanded_a_second_time(prompts: Any, text: str):
    assert len(find_texts(prompts(text), text)) == 1


@pytest.mark.parametrize(
    "text",
    ["\u202eעברית", "zero\u200bwidth\ufeff", "e\u0301 and é", "👩‍👩‍👧 🪁", "\u0000a", "日本語"],
)
def test_input_16_every_script_comes_through_character_for_character(prompts: Any, text: str):
    assert len(find_texts(prompts(text), text)) == 1


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "x" * 100_000, "x" * 10_001])
def test_input_17_a_text_that_cannot_be_sent_or_is_too_long_is_refused(
    world: InputWorld, text: str
):
    code, sentence = world.refuse(make_message(PromptText=text))
    assert code == "INVALID_MESSAGE"
    assert sentence.startswith("PromptText must")


DURATIONS = [
    ("latent-sync", "StartTimeSeconds", "ResultVideoDurationSeconds", 10),
    ("latent-sync-text", "AudioStartTime", "AudioDuration", 15),
    ("sonic-audio", "AudioStartTime", "AudioDuration", 15),
    ("video-live-portrait", "SourceAudioStartTime", "SourceAudioDuration", 15),
]


@pytest.mark.parametrize(("workflow", "start", "duration", "most"), DURATIONS)
@pytest.mark.parametrize("given", [0, 0.0, 7, 7.5, 10_000, 1e30, None])
def test_input_18_a_duration_is_clamped(
    world: InputWorld, workflow: str, start: str, duration: str, most: int, given: Any
):
    job = world.accept(make_message(workflow, **{start: 3, duration: given}))
    assert job.inputs is not None
    assert job.inputs.values["duration"] == min(given or most, most)
    assert job.inputs.values["startTime"] == 3


@pytest.mark.parametrize(("workflow", "start", "duration", "most"), DURATIONS)
@pytest.mark.parametrize("given", [-1, -0.5, "7", True, [7]])
@pytest.mark.parametrize("place", [0, 1])
def test_input_18_a_negative_time_or_one_that_is_no_number_is_refused(
    world: InputWorld, workflow: str, start: str, duration: str, most: int, given: Any, place: int
):
    member = (start, duration)[place]
    code, sentence = world.refuse(make_message(workflow, **{member: given}))
    assert (code, sentence.split()[0]) == ("INVALID_MESSAGE", member)


@pytest.mark.parametrize("member", ["StartTimeSeconds", "ResultVideoDurationSeconds"])
def test_input_18_a_duration_that_is_nan_is_refused(world: InputWorld, member: str):
    body = make_message("latent-sync", **{member: float("nan")})
    assert world.refuse(body)[0] == "INVALID_JSON"


SPEAKERS = ["latent-sync-text", "sonic-text", "still-image-text", "video-on-output-text"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([54, 9], (54, 9)),
        ([1, 1], (1, 1)),
        ([], (28, 2)),
        ([3], (28, 2)),
        ([3, 4, 5], (28, 2)),
        ([0, 3], (28, 3)),
        ([55, 10], (28, 2)),
        ([-1, 2**40], (28, 2)),
        (None, (28, 2)),
    ],
)
@pytest.mark.parametrize("workflow", SPEAKERS)
def test_input_19_context_values_that_do_not_fit_become_the_defaults(
    world: InputWorld, workflow: str, values: Any, expected: tuple[int, int]
):
    job = world.accept(make_message(workflow, ContextValues=values))
    assert job.inputs is not None
    chosen = job.inputs.values["contextValue"], job.inputs.values["contextValue2"]
    assert chosen == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([8, 3], (8, 3)), ([9, 4], (1, 1)), ([], (1, 1)), ([2], (1, 1)), ([2, 0], (2, 1))],
)
def test_input_19_mm_audio_has_defaults_of_its_own(world: InputWorld, values: Any, expected: Any):
    job = world.accept(make_message("mm-audio", ContextValues=values))
    assert job.inputs is not None
    chosen = job.inputs.values["contextValue"], job.inputs.values["contextValue2"]
    assert chosen == expected


@pytest.mark.parametrize("values", ["28", 28, {"0": 28}, True, ["28", "2"], [1.5, 2], [True, 2]])
@pytest.mark.parametrize("workflow", [*SPEAKERS, "mm-audio"])
def test_input_19_context_values_that_are_no_list_of_integers_are_refused(
    world: InputWorld, workflow: str, values: Any
):
    code, sentence = world.refuse(make_message(workflow, ContextValues=values))
    assert (code, sentence.split()[0]) == ("INVALID_MESSAGE", "ContextValues")


SOURCES = ["photo-make-up-thumbnails", "photo-make-up-skin-thumbnails", "flux-photo-redux-style"]


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
@pytest.mark.parametrize("workflow", SOURCES)
def test_input_20_one_source_is_taken_the_first(world: InputWorld, workflow: str, count: int):
    keys = [f"in/source-{n}.png" for n in range(count)]
    job = world.accept(make_message(workflow, SourceS3Keys=keys))
    assert job.inputs is not None
    assert [media.key for media in job.inputs.media][1:] == ["in/source-0.png"]


@pytest.mark.parametrize("workflow", SOURCES)
def test_input_20_no_source_is_refused(world: InputWorld, workflow: str):
    code, sentence = world.refuse(make_message(workflow, SourceS3Keys=[]))
    assert (code, sentence.split()[0]) == ("INVALID_MESSAGE", "SourceS3Keys")


@pytest.mark.parametrize(("count", "workflow"), [(1, "photo-pulid-2"), (2, "photo-pulid-3")])
def test_input_20_the_count_of_sources_chooses_the_workflow(
    world: InputWorld, count: int, workflow: str
):
    keys = [f"in/source-{n}.png" for n in range(count)]
    job = world.accept(make_message("photo-pulid-2", SourceS3Keys=keys))
    assert job.inputs is not None
    assert (job.workflow, len(job.inputs.media)) == (workflow, 1 + count)


@pytest.mark.parametrize("count", [0, 3, 1000])
def test_input_20_any_other_count_is_refused_where_it_chooses(world: InputWorld, count: int):
    keys = ["in/source.png"] * count
    code, sentence = world.refuse(make_message("photo-pulid-2", SourceS3Keys=keys))
    assert (code, sentence.split()[0]) == ("INVALID_MESSAGE", "SourceS3Keys")


@pytest.mark.parametrize("keys", [None, "in/a.png", [3], [None], ["in/a.exe"]])
def test_input_20_what_is_no_list_of_keys_is_refused(world: InputWorld, keys: Any):
    code, sentence = world.refuse(make_message("photo-pulid-2", SourceS3Keys=keys))
    assert code in {"INVALID_MESSAGE", "UNSUPPORTED_MEDIA"}
    assert sentence.startswith("SourceS3Keys ")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)


@pytest.mark.parametrize(
    ("s3_code", "status", "error", "code"),
    [
        ("NoSuchKey", 404, InputNotFoundError, "INPUT_NOT_FOUND"),
        ("NoSuchBucket", 404, InputNotFoundError, "INPUT_NOT_FOUND"),
        ("AccessDenied", 403, InputForbiddenError, "INPUT_FORBIDDEN"),
        ("KMS.DisabledException", 400, InputForbiddenError, "INPUT_FORBIDDEN"),
        ("KMS.KMSInvalidStateException", 400, InputForbiddenError, "INPUT_FORBIDDEN"),
        ("KMS.NotFoundException", 400, InputForbiddenError, "INPUT_FORBIDDEN"),
    ],
)
def test_input_21_an_input_that_cannot_be_read_ends_the_job_at_once(
    world: InputWorld, credentials: None, s3_code: str, status: int, error: Any, code: str
):
    job = world.accept(make_message("flux-photo-prompt"))
    client = boto3.client("s3")
    with Stubber(client) as stubber:
        stubber.add_client_error("get_object", s3_code, http_status_code=status)
        with pytest.raises(error) as caught:
            world.submit(job, media=S3MediaStore(client))
        stubber.assert_no_pending_responses()
    assert_failed(world, job, caught.value, code)


@pytest.mark.parametrize(
    "error",
    [InputNotFoundError, InputForbiddenError, InputTooLargeError, UnsupportedMediaError],
)
def test_input_21_no_step_tries_such_an_input_again(error: type[JobError]):
    definition = json.loads((PROJECT / "statemachines" / "run_job.asl.json").read_text())
    state = definition["States"]["Submit Prompt"]
    rules = [rule for rule in state["Retry"] if error.__name__ in rule["ErrorEquals"]]
    assert [rule["MaxAttempts"] for rule in rules] == [0]
    assert state["Retry"].index(rules[0]) == 0
    assert state["Catch"][-1] == {
        "ErrorEquals": ["States.ALL"],
        "ResultPath": "$.error",
        "Next": "Finish Job",
    }


def make_bomb() -> bytes:
    """A PNG of 60,000 by 60,000 pixels in less than 100 bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    return PICTURE[:8] + b"\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(
    ("content", "error", "code"),
    [
        (b"", UnsupportedMediaError, "UNSUPPORTED_MEDIA"),
        (b"<!DOCTYPE html><html></html>", UnsupportedMediaError, "UNSUPPORTED_MEDIA"),
        (VIDEO, UnsupportedMediaError, "UNSUPPORTED_MEDIA"),
        (PICTURE[:20], UnsupportedMediaError, "UNSUPPORTED_MEDIA"),
        (make_bomb(), InputTooLargeError, "INPUT_TOO_LARGE"),
    ],
    ids=["0 bytes", "HTML named .png", "video named .png", "cut short", "decompression bomb"],
)
def test_input_22_what_is_no_picture_never_reaches_an_instance(
    world: InputWorld, content: bytes, error: Any, code: str
):
    job = world.accept(make_message("flux-photo-prompt"))
    world.media.inputs[BUCKET, "in/photo.png"] = content
    with pytest.raises(error) as caught:
        world.submit(job)
    assert world.comfyui.uploads == {}
    assert_failed(world, job, caught.value, code)


def test_input_22_an_input_over_the_size_limit_is_not_even_read(world: InputWorld):
    class UnreadableStream(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise AssertionError("its size had told enough")

    class OneLargeObject(S3MediaStore):
        def __init__(self) -> None:
            pass

        def open_input(self, source: Any) -> Any:
            return nullcontext(MediaStream(UnreadableStream(), MAX_INPUT_BYTES + 1))

    job = world.accept(make_message("flux-photo-prompt"))
    with pytest.raises(InputTooLargeError) as caught:
        world.submit(job, media=OneLargeObject())
    assert_failed(world, job, caught.value, "INPUT_TOO_LARGE")


@pytest.mark.parametrize("later", [timedelta(), timedelta(days=2)])
def test_input_23_the_same_message_again_is_the_same_job(world: InputWorld, later: timedelta):
    world.accept(make_message())
    world.deliver(make_message(), at=NOON + later, new_id=lambda _: "another-sqs-id")
    assert list(world.jobs.jobs) == [JOB_ID]
    assert world.replies == []
    job = world.jobs.get(JOB_ID)
    store, runner = InMemoryFleetStore(job.fleet, make_instance("a")), InMemoryJobRunner()
    admit = make_admit_jobs(world, job.fleet, world.queues[job.fleet], store, runner)
    admit.admit(job.fleet)
    admit.admit(job.fleet)
    assert runner.started == [(JOB_ID, 1)]


def test_input_23_the_same_message_twice_in_a_batch_is_one_job(world: InputWorld):
    world.deliver(make_message(), make_message())
    assert list(world.jobs.jobs) == [JOB_ID]


def test_input_23_two_days_after_the_answer_it_is_left_alone(world: InputWorld):
    job = world.accept(make_message())
    (message,) = world.queues[job.fleet].receive(1)
    world.queues[job.fleet].delete([message.receipt])
    closed = world.finish(job, InputNotFoundError("The input image does not exist."))
    world.deliver(make_message(), at=NOON + timedelta(days=2))
    assert (world.waiting, len(world.replies)) == ([], 1)
    assert world.jobs.jobs == {JOB_ID: closed}


@pytest.mark.parametrize(
    "second",
    [
        make_message(PartialName=OTHER_NAME),
        make_message("flux-photo-prompt", PartialName=OTHER_NAME),
        make_message(PartialName=OTHER_NAME, PromptText="other"),
    ],
    ids=["other name", "other subject", "other text"],
)
def test_input_24_another_message_under_the_same_id_is_told_so(world: InputWorld, second: str):
    first = world.accept(make_message())
    world.deliver(second)
    ((_, failed),) = [(i, j) for i, j in world.jobs.jobs.items() if i != JOB_ID]
    assert failed.failure is not None
    assert failed.failure.code == "CONFLICT"
    assert [reply["PartialName"] for reply in world.replies] == [OTHER_NAME]
    assert world.jobs.get(JOB_ID) == first
    assert world.waiting == [make_message()]


@pytest.mark.parametrize(
    "second", [make_message("flux-photo-prompt"), make_message(PromptText="other")]
)
def test_input_24_a_conflict_under_the_same_name_is_silent(world: InputWorld, second: str):
    first = world.accept(make_message())
    world.deliver(second)
    assert (world.replies, world.refused.kept) == ([], [])
    assert world.jobs.jobs == {JOB_ID: first}
    assert "CONFLICT" in world.log.getvalue()


@pytest.mark.parametrize(
    "info",
    [
        make_convert_info(DestinationBucketPath="others/7"),
        make_convert_info(
            MediaConvertJobSqsQueue="https://sqs.us-east-1.amazonaws.com/123456789012/others"
        ),
    ],
    ids=["bucket", "queue"],
)
def test_input_25_a_hand_off_elsewhere_is_refused_and_the_result_delivered(
    world: InputWorld, info: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    job = world.accept(make_message("latent-sync", MediaConvertInfo=info))
    assert '"HandOffsRefused":[1.0]' in capsys.readouterr().out.replace(" ", "")
    assert "hand-off refused" in world.log.getvalue()
    assert info["DestinationBucketPath"] not in world.log.getvalue()
    world.media.inputs = {(BUCKET, "in/clip.mp4"): VIDEO, (BUCKET, "in/voice.mp3"): b"ID3"}
    video = [{"filename": "a.mp4", "subfolder": "", "type": "output"}]
    job = world.await_outputs(world.submit(job), {"6": {"gifs": video}})
    world.jobs.save(job.collect(("comfyui-results/a.mp4",)))
    closed = world.finish(job)
    assert closed.state is JobState.SUCCEEDED
    assert [reply["MainKey"] for reply in world.replies] == ["comfyui-results/a.mp4"]
    assert closed.hand_off is not None
    assert closed.hand_off.state is HandOffState.REFUSED
    assert (world.media.copies, world.conversions.sent) == ({}, [])


def submit_flux(world: InputWorld) -> Job:
    return world.submit(world.accept(make_message()))


@pytest.mark.parametrize(
    "file",
    [
        {"filename": "../../x.png"},
        {"filename": "/etc/passwd"},
        {"filename": "a\0.png"},
        {"filename": "..\\x.png"},
        {"filename": ".."},
        {"filename": ""},
        {"filename": 3},
        {"filename": "x" * 256},
        {"filename": "x.png", "subfolder": "/etc"},
        {"filename": "x.png", "subfolder": "a/../.."},
        {"filename": "x.png", "subfolder": "\\\\host"},
        {"filename": "x.png", "subfolder": 3},
        {"filename": "x.png", "type": "models"},
    ],
    ids=str,
)
def test_input_26_an_output_that_could_lie_elsewhere_is_invalid(
    world: InputWorld, file: dict[str, Any]
):
    job = submit_flux(world)
    outputs = {"9": {"images": [{"subfolder": "", "type": "output", **file}]}}
    with pytest.raises(OutputInvalidError) as caught:
        world.await_outputs(job, outputs)
    closed = world.finish(job, caught.value)
    assert closed.failure is not None
    assert closed.failure.code == "OUTPUT_INVALID"
    assert world.media.results == {}


@pytest.mark.parametrize("size", [100, 20 * 1024 * 1024], ids=["one call", "in parts"])
def test_input_26_an_output_over_the_limit_leaves_nothing_behind(
    world: InputWorld, credentials: None, monkeypatch: pytest.MonkeyPatch, size: int
):
    monkeypatch.setattr(s3, "MAX_OUTPUT_BYTES", size - 1)
    job = submit_flux(world)
    job = job.list_outputs((OutputFile(filename="x.png"),))
    world.jobs.save(job)
    world.comfyui.files["x.png"] = bytes(size)
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="results")
        media = S3MediaStore(client, result_bucket="results")
        with pytest.raises(OutputTooLargeError) as caught:
            make_collect_outputs(world, job, media).collect(JOB_ID)
        assert client.list_objects_v2(Bucket="results")["KeyCount"] == 0
        assert "Uploads" not in client.list_multipart_uploads(Bucket="results")
    closed = world.finish(job, caught.value)
    assert closed.failure is not None
    assert closed.failure.code == "OUTPUT_TOO_LARGE"


def test_input_27_the_body_wins_over_message_attributes(world: InputWorld):
    attributes = {
        "Subject": {"dataType": "String", "stringValue": "ComfyUiMusicGenMessage"},
        "MessageId": {"dataType": "String", "stringValue": "another-id"},
        "JobId": {"dataType": "String", "stringValue": "another-id"},
    }
    world.deliver(make_message(), attributes=attributes)
    assert list(world.jobs.jobs) == [JOB_ID]
    job = world.jobs.get(JOB_ID)
    assert job.workflow == "flux-prompt"
    store, runner = InMemoryFleetStore(job.fleet, make_instance("a")), InMemoryJobRunner()
    make_admit_jobs(world, job.fleet, world.queues[job.fleet], store, runner).admit(job.fleet)
    assert runner.started == [(JOB_ID, 1)]


def test_input_27_an_attribute_does_not_stand_in_for_a_message_id(world: InputWorld):
    attributes = {"JobId": {"dataType": "String", "stringValue": "another-id"}}
    world.deliver(wrap(json.dumps(make_payload()), omit="MessageId"), attributes=attributes)
    (job,) = world.jobs.jobs.values()
    assert job.job_id != "another-id"
    store, runner = InMemoryFleetStore(job.fleet, make_instance("a")), InMemoryJobRunner()
    make_admit_jobs(world, job.fleet, world.queues[job.fleet], store, runner).admit(job.fleet)
    assert runner.started == [(job.job_id, 1)]


SAVER = '"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "___outputPrefix___"}}'
TEXT = '"4": {"class_type": "Text", "inputs": {"text": "___promptText___", "seed": ___seed___}}'


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("not JSON", "line 1"),
        ('{"nodes": [{"id": 3}], "links": [], "version": 0.4}', "API"),
        (
            f'{{{SAVER}, {TEXT}, "1": {{"class_type": "A", "inputs": {{"x": ["2", 0]}}}}, '
            '"2": {"class_type": "B", "inputs": {"y": ["1", 0]}}}',
            "1 takes from 2",
        ),
        (
            f'{{{SAVER}, {TEXT}, "1": {{"class_type": "A", "inputs": {{"x": ["7", 0]}}}}}}',
            "node 1 (A), input x",
        ),
        (
            f'{{{SAVER}, {TEXT}, "1": {{"class_type": "A", "inputs": {{"x": "___nobody___"}}}}}}',
            "node 1 (A), input x",
        ),
    ],
    ids=["no JSON", "UI format", "cycle", "missing node", "placeholder nobody fills"],
)
def test_input_28_a_wrong_graph_is_refused_by_check_and_at_start(
    tmp_path: Path, text: str, where: str
):
    folder = copy_workflow(tmp_path)
    (folder / "flux-prompt.json").write_text(text)
    assert_refused(tmp_path, where)


@pytest.mark.reference_graphs
def test_input_28_a_binding_to_an_absent_node_is_refused_by_check_and_at_start(tmp_path: Path):
    manifest = copy_workflow(tmp_path) / "flux-prompt.yaml"
    bindings = manifest.read_text().partition("promptText: [{ node: ")
    assert bindings[1]
    manifest.write_text(bindings[0] + bindings[1] + '"77' + bindings[2].removeprefix('"'))
    assert_refused(tmp_path, "77")


def copy_workflow(workflows: Path) -> Path:
    folder = workflows / "pulid"
    folder.mkdir()
    for suffix in ("json", "yaml"):
        name = f"flux-prompt.{suffix}"
        (folder / name).write_text((PROJECT / "workflows" / "pulid" / name).read_text())
    return folder


def assert_refused(workflows: Path, where: str) -> None:
    result = CliRunner().invoke(workflow_commands, ["check", "--workflows", str(workflows)])
    assert result.exit_code == 1
    assert "flux-prompt" in result.output
    assert where in result.output
    with pytest.raises(WorkflowError, match="flux-prompt"):
        load_catalog(workflows)


def make_collect_outputs(world: InputWorld, job: Job, media: S3MediaStore) -> CollectOutputs:
    connector = InMemoryConnector({job.address: world.comfyui})
    return CollectOutputs(world.jobs, media, connector, PillowImageConverter(), world.clock)

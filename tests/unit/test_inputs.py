from typing import Any

import pytest

from ml_service.domain.errors import RefusalCode, RefusedMessageError
from ml_service.domain.inputs import JobInputs, resolve_inputs
from tests.makers import BUCKET, CATALOG, PARTIAL_NAME, make_payload


def resolve(workflow: str, **changes: Any) -> JobInputs:
    return resolve_inputs(
        CATALOG.workflow(workflow),
        make_payload(workflow, **changes),
        partial_name=PARTIAL_NAME,
        input_buckets=frozenset({BUCKET, "other"}),
    )


def refusal(workflow: str, **changes: Any) -> tuple[RefusalCode, str]:
    with pytest.raises(RefusedMessageError) as caught:
        resolve(workflow, **changes)
    return caught.value.code, caught.value.sentence


def test_the_output_prefix_is_group_workflow_base_name_and_partial_name():
    assert resolve("latent-sync").output_prefix == f"42-latent-sync-clip-{PARTIAL_NAME}"


def test_a_workflow_without_an_input_file_has_no_base_name_in_its_prefix():
    assert resolve("flux-prompt").output_prefix == f"42-flux-prompt-{PARTIAL_NAME}"


def test_files_are_named_after_the_prefix():
    video, audio = resolve("latent-sync").media
    prefix = f"42-latent-sync-clip-{PARTIAL_NAME}"
    assert (video.input, video.key, video.upload_name) == (
        "video",
        "videos/7/clip.mp4",
        f"{prefix}.mp4",
    )
    assert (audio.input, audio.upload_name) == ("audio", f"{prefix}-audio.mp3")


def test_a_source_file_is_named_with_workflow_and_index():
    workflow = "photo-make-up-lips-thumbnails"
    _, makeup = resolve(workflow).media
    assert makeup.upload_name == f"42-{workflow}-face-{PARTIAL_NAME}-{workflow}-source-0.png"


def test_a_video_key_without_an_extension_means_the_raw_video_below_it():
    video, _ = resolve("latent-sync", VideoS3Key="videos/7").media
    assert video.key == "videos/7/video_raw.mp4"
    assert video.upload_name == f"42-latent-sync-video_raw-{PARTIAL_NAME}.mp4"


@pytest.mark.parametrize(("given", "bucket"), [("other", "other"), (" ", BUCKET), (None, BUCKET)])
def test_a_blank_bucket_member_falls_back_to_the_common_bucket(given: str | None, bucket: str):
    assert resolve("latent-sync", AudioS3Bucket=given).media[1].bucket == bucket


@pytest.mark.parametrize(
    ("given", "duration"), [(0, 10), (None, 10), (3, 3), (2.5, 2.5), (10, 10), (99, 10)]
)
def test_a_duration_of_0_means_10_and_more_is_cut(given: float | None, duration: float):
    assert resolve("latent-sync", ResultVideoDurationSeconds=given).values["duration"] == duration


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("a\r\n\tb", "a b"),
        ('say "hi" \\ ___seed___ {{x}}', 'say "hi" \\ ___seed___ {{x}}'),
        ("\u202eעברית\u200b 👩‍👩‍👧", "\u202eעברית\u200b 👩‍👩‍👧"),
    ],
)
def test_a_text_keeps_every_character_but_line_breaks(given: str, text: str):
    assert resolve("flux-prompt", PromptText=given).values["promptText"] == text


@pytest.mark.parametrize("blank", [None, "", "  ", "\n\t"])
def test_a_blank_text_takes_the_manifests_default(blank: str | None):
    default = CATALOG.workflow("flux-prompt").inputs["promptText"].default
    assert resolve("flux-prompt", PromptText=blank).values["promptText"] == default


@pytest.mark.parametrize(
    ("workflow", "changes", "member"),
    [
        ("flux-prompt", {"GroupId": None}, "GroupId"),
        ("flux-prompt", {"GroupId": "12"}, "GroupId"),
        ("flux-prompt", {"GroupId": True}, "GroupId"),
        ("flux-prompt", {"GroupId": 1.5}, "GroupId"),
        ("flux-prompt", {"GroupId": 2**63}, "GroupId"),
        ("flux-prompt", {"PromptText": 3}, "PromptText"),
        ("flux-prompt", {"PromptText": "\ud800"}, "PromptText"),
        ("flux-prompt", {"PromptText": "x" * 10_001}, "PromptText"),
        ("latent-sync", {"VideoS3Key": None}, "VideoS3Key"),
        ("latent-sync", {"VideoS3Key": " "}, "VideoS3Key"),
        ("latent-sync", {"VideoS3Key": "/abs.mp4"}, "VideoS3Key"),
        ("latent-sync", {"VideoS3Key": "a/../b.mp4"}, "VideoS3Key"),
        ("latent-sync", {"VideoS3Key": "a\n.mp4"}, "VideoS3Key"),
        ("latent-sync", {"VideoS3Key": "a\x00.mp4"}, "VideoS3Key"),
        ("latent-sync", {"VideoS3Key": "a?.mp4"}, "VideoS3Key"),
        ("latent-sync", {"VideoS3Key": "a" * 1021 + ".mp4"}, "VideoS3Key"),
        ("latent-sync", {"StartTimeSeconds": -1}, "StartTimeSeconds"),
        ("latent-sync", {"StartTimeSeconds": "1"}, "StartTimeSeconds"),
        ("latent-sync", {"StartTimeSeconds": True}, "StartTimeSeconds"),
        ("latent-sync", {"S3Bucket": None}, "S3Bucket"),
        ("photo-make-up-lips-thumbnails", {"SourceS3Keys": []}, "SourceS3Keys"),
        ("photo-make-up-lips-thumbnails", {"SourceS3Keys": "a.png"}, "SourceS3Keys"),
        ("photo-make-up-lips-thumbnails", {"SourceS3Keys": [None]}, "SourceS3Keys"),
    ],
)
def test_a_wrong_member_is_refused_by_its_name(workflow: str, changes: dict[str, Any], member: str):
    code, sentence = refusal(workflow, **changes)
    assert code is RefusalCode.INVALID_MESSAGE
    assert sentence.startswith(member)


def test_a_file_of_an_unknown_extension_is_refused():
    code, sentence = refusal("photo-make-up-lips-thumbnails", InputS3Key="photos/face.bmp")
    assert code is RefusalCode.UNSUPPORTED_MEDIA
    assert "jpeg, jpg, mp3, mp4, png, webp" in sentence


def test_extensions_are_accepted_in_any_case_and_stay_as_they_are():
    inputs = resolve("photo-make-up-lips-thumbnails", InputS3Key="a/FACE.JPG")
    assert inputs.media[0].upload_name == f"{inputs.output_prefix}.JPG"


def test_a_bucket_that_is_not_allowed_is_refused():
    assert refusal("latent-sync", AudioS3Bucket="foreign")[0] is RefusalCode.FORBIDDEN_SOURCE


@pytest.mark.parametrize("base", ["x" * 200, "é" * 100, "x" * 170])
def test_a_file_name_longer_than_an_instance_takes_is_refused(base: str):
    code, sentence = refusal("latent-sync", VideoS3Key=f"videos/{base}.mp4")
    assert code is RefusalCode.INVALID_MESSAGE
    assert sentence == "VideoS3Key has a file name that is too long."


def test_the_longest_file_name_leaves_room_for_the_endings_of_outputs():
    inputs = resolve("latent-sync", VideoS3Key=f"videos/{'x' * 120}.mp4")
    assert len(inputs.output_prefix) + len("_608x1080_00001_.png") <= 255


def test_a_key_is_too_long_with_the_file_that_is_meant_below_it():
    code, _ = refusal("latent-sync", VideoS3Key=f"{'a/' * 507}")
    assert code is RefusalCode.INVALID_MESSAGE

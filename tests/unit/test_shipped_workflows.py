"""The shipped manifests against the backend's contract, written out here once more."""

from typing import Any

import pytest

from ml_service.domain.errors import RefusalCode, RefusedMessageError
from ml_service.domain.inputs import JobInputs, resolve_inputs
from ml_service.domain.manifests import OutputRole
from ml_service.domain.rendering import render_prompt
from tests.makers import BUCKET, CATALOG, PARTIAL_NAME

SUBJECTS = {
    "ComfyUiLatentSyncMessage": ("latent-sync", "lip-sync"),
    "ComfyUiLatentSyncTextMessage": ("latent-sync-text", "lip-sync"),
    "ComfyUiSonicTextMessage": ("sonic-text", "lip-sync"),
    "ComfyUiSonicAudioMessage": ("sonic-audio", "lip-sync"),
    "ComfyUiVideoLivePortraitMessage": ("video-live-portrait", "lip-sync"),
    "ComfyUiFluxPromptMessage": ("flux-prompt", "pulid"),
    "ComfyUiFluxPhotoPromptMessage": ("flux-photo-prompt", "pulid"),
    "ComfyUiFluxPhotoReduxStyleMessage": ("flux-photo-redux-style", "pulid"),
    "ComfyUiPhotoPulidMultiCharMessage": ("photo-pulid-2", "pulid"),
    "ComfyUiPhotoMakeUpThumbnailsMessage": ("photo-make-up-thumbnails", "makeup"),
    "ComfyUiPhotoMakeUpEyebrowsThumbnailsMessage": ("photo-make-up-eyebrows-thumbnails", "makeup"),
    "ComfyUiPhotoMakeUpEyelashesEyeshadowThumbnailsMessage": (
        "photo-make-up-eyelashes-eyeshadow-thumbnails",
        "makeup",
    ),
    "ComfyUiPhotoMakeUpLipsThumbnailsMessage": ("photo-make-up-lips-thumbnails", "makeup"),
    "ComfyUiPhotoMakeUpSkinThumbnailsMessage": ("photo-make-up-skin-thumbnails", "makeup"),
    "ComfyUiPhotoAcePlusMessage": ("photo-ace-plus", "makeup"),
    "ComfyUiVideoOnOutputAudioMessage": ("video-on-output-audio", "makeup"),
    "ComfyUiVideoOnOutputTextMessage": ("video-on-output-text", "makeup"),
    "ComfyUiStillImageAudioMessage": ("still-image-audio", "makeup"),
    "ComfyUiStillImageTextMessage": ("still-image-text", "makeup"),
    "ComfyUiMusicGenMessage": ("music-gen", "makeup"),
    "ComfyUiMmAudioMessage": ("mm-audio", "makeup"),
}
BACKENDS = sorted(w.workflow for w in CATALOG if w.subjects)
SPEAKING = ["latent-sync-text", "sonic-text", "still-image-text", "video-on-output-text"]
MASKED = [
    "photo-make-up-eyebrows-thumbnails",
    "photo-make-up-eyelashes-eyeshadow-thumbnails",
    "photo-make-up-lips-thumbnails",
    "photo-make-up-skin-thumbnails",
]
FILES = {
    "InputS3Key": "in/face.png",
    "VideoS3Key": "in/clip.mp4",
    "AudioS3Key": "in/voice.mp3",
    "SourceS3Keys": ["in/one.png", "in/two.jpg"],
    "SourceS3Key": "in/coat.webp",
    "MaskS3Key": "in/mask.png",
    "SourceVideoS3Key": "in/drive.mp4",
    "SourceAudioS3Key": "in/speech.mp3",
}


def resolve(workflow: str, **members: Any) -> JobInputs:
    payload = {"S3Bucket": BUCKET, "GroupId": 5, "PartialName": PARTIAL_NAME, **FILES, **members}
    return resolve_inputs(
        CATALOG.workflow(workflow),
        {name: value for name, value in payload.items() if value is not None},
        partial_name=PARTIAL_NAME,
        input_buckets=frozenset({BUCKET}),
    )


def uploads(workflow: str, **members: Any) -> dict[str, str]:
    inputs = resolve(workflow, **members)
    return {
        media.input: media.upload_name.replace(inputs.output_prefix, "P") for media in inputs.media
    }


def choices(workflow: str, **members: Any) -> list[Any]:
    values = resolve(workflow, **members).values
    return [values[name] for name in sorted(values) if name.startswith("contextValue")]


def refusal(workflow: str, **members: Any) -> str:
    with pytest.raises(RefusedMessageError) as caught:
        resolve(workflow, **members)
    assert caught.value.code is RefusalCode.INVALID_MESSAGE
    return caught.value.sentence


def test_there_are_21_subjects_and_22_workflows():
    found = {s: (w.workflow, w.fleet) for w in reversed(list(CATALOG)) for s in w.subjects}
    assert found == SUBJECTS
    assert len(BACKENDS) == 22
    assert [w.workflow for w in CATALOG if not w.subjects] == ["text-to-image"]


@pytest.mark.parametrize(
    ("keys", "workflow"), [(["a.png"], "photo-pulid-2"), (["a.png", "b.png"], "photo-pulid-3")]
)
def test_the_number_of_sources_selects_the_pulid_workflow(keys: list[str], workflow: str):
    subject = "ComfyUiPhotoPulidMultiCharMessage"
    assert CATALOG.classify(subject, {"SourceS3Keys": keys}).workflow == workflow


@pytest.mark.parametrize("keys", [[], ["a.png"] * 3, ["a.png"] * 1000, None, "a.png"])
def test_any_other_number_of_sources_is_an_error(keys: Any):
    with pytest.raises(RefusedMessageError, match="1 or 2 entries"):
        CATALOG.classify("ComfyUiPhotoPulidMultiCharMessage", {"SourceS3Keys": keys})


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        ("latent-sync", {"video": "P.mp4", "audio": "P-audio.mp3"}),
        ("latent-sync-text", {"video": "P.mp4"}),
        ("sonic-text", {"image": "P.png"}),
        ("sonic-audio", {"image": "P.png", "audio": "P-sonic-audio.mp3"}),
        ("flux-prompt", {}),
        ("flux-photo-prompt", {"image": "P.png"}),
        (
            "flux-photo-redux-style",
            {"image": "P.png", "source": "P-flux-photo-redux-style-source-0.png"},
        ),
        ("photo-pulid-2", {"image": "P.png", "source1": "P-photo-pulid-2-source-0.png"}),
        (
            "photo-pulid-3",
            {
                "image": "P.png",
                "source1": "P-photo-pulid-3-source-0.png",
                "source2": "P-photo-pulid-3-source-1.jpg",
            },
        ),
        (
            "photo-make-up-skin-thumbnails",
            {"image": "P.png", "makeup": "P-photo-make-up-skin-thumbnails-source-0.png"},
        ),
        (
            "photo-ace-plus",
            {
                "input": "P.png",
                "source": "P-photo-ace-plus-source.webp",
                "mask": "P-photo-ace-plus-mask.png",
            },
        ),
        ("video-on-output-audio", {"video": "P.mp4", "audio": "P-video-on-output-audio.mp3"}),
        ("video-on-output-text", {"video": "P.mp4"}),
        ("still-image-audio", {"image": "P.png", "audio": "P-still-image-audio.mp3"}),
        ("still-image-text", {"image": "P.png"}),
        ("music-gen", {"input": "P.png"}),
        ("mm-audio", {"input": "P.png", "audio": "P-mm-audio.mp3"}),
    ],
)
def test_the_files_of_each_workflow_have_the_contracts_names(
    workflow: str, expected: dict[str, str]
):
    assert uploads(workflow) == expected


@pytest.mark.parametrize("workflow", SPEAKING)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 1], [1, 1]),
        ([54, 9], [54, 9]),
        ([55, 10], [28, 2]),
        ([0, 0], [28, 2]),
        ([3], [28, 2]),
        ([3, 4, 5], [28, 2]),
        ([], [28, 2]),
        (None, [28, 2]),
    ],
)
def test_speaker_and_language(workflow: str, given: Any, expected: list[int]):
    assert choices(workflow, ContextValues=given) == expected


@pytest.mark.parametrize(
    ("workflow", "members", "expected"),
    [
        ("mm-audio", {"ContextValues": [8, 3]}, [8, 3]),
        ("mm-audio", {"ContextValues": [9, 4]}, [1, 1]),
        ("mm-audio", {"ContextValues": [2]}, [1, 1]),
        ("music-gen", {"BackGroundMusicContextValue": 1}, [1]),
        ("music-gen", {"BackGroundMusicContextValue": 4}, [3]),
        ("music-gen", {}, [3]),
        (
            "photo-ace-plus",
            {
                "AcePlusWardrobeModeContextValue": 8,
                "AcePlusReferenceModeContextValue": 1,
                "AcePlusMaskModeContextValue": 2,
            },
            [8, 1, 2],
        ),
        ("photo-ace-plus", {"AcePlusWardrobeModeContextValue": 9}, [1, 1, 1]),
        (
            "video-live-portrait",
            {
                "LivePortraitAudioInputModeContextValue": 3,
                "LivePortraitCopperModeContextValue": 2,
                "LivePortraitModelModeContextValue": 2,
            },
            [3, 2, 2],
        ),
        ("video-live-portrait", {"LivePortraitModelModeContextValue": 3}, [1, 1, 1]),
    ],
)
def test_modes_are_taken_in_order_and_fall_back(
    workflow: str, members: dict[str, Any], expected: list[int]
):
    assert choices(workflow, **members) == expected


@pytest.mark.parametrize("given", ["1", [1.5, 2], [True, 1], {"a": 1}])
def test_context_values_that_are_no_list_of_integers_are_refused(given: Any):
    assert refusal("mm-audio", ContextValues=given).startswith("ContextValues must")


@pytest.mark.parametrize(
    ("workflow", "start", "duration", "limit"),
    [
        ("latent-sync", "StartTimeSeconds", "ResultVideoDurationSeconds", 10),
        ("sonic-audio", "AudioStartTime", "AudioDuration", 15),
        ("still-image-audio", "AudioStartTime", "AudioDuration", 15),
        ("video-on-output-audio", "AudioStartTime", "AudioDuration", 15),
        ("video-live-portrait", "SourceAudioStartTime", "SourceAudioDuration", 15),
    ],
)
def test_start_and_duration(workflow: str, start: str, duration: str, limit: int):
    for given, expected in ((0, limit), (None, limit), (4, 4), (99, limit)):
        values = resolve(workflow, **{start: 2, duration: given}).values
        assert (values["startTime"], values["duration"]) == (2, expected)


def test_ace_plus_asks_for_what_its_modes_need():
    assert "SourceS3Key must be" in refusal("photo-ace-plus", SourceS3Key=None)
    manual = {"AcePlusMaskModeContextValue": 2, "MaskS3Key": None}
    assert "MaskS3Key must be" in refusal("photo-ace-plus", **manual)
    assert "not supported" in refusal("photo-ace-plus", AcePlusReferenceModeContextValue=2)
    inputs = resolve("photo-ace-plus", MaskS3Key=None)
    assert inputs.values["mask"] == "not-exists"


def test_mm_audio_makes_its_sound_without_an_audio_file_too():
    assert resolve("mm-audio", AudioS3Key=None).values["audio"] == "not-exists"


def test_live_portrait_asks_for_what_its_modes_need():
    mode = "LivePortraitAudioInputModeContextValue"
    name = "video-live-portrait"
    assert "SourceAudioS3Key" in refusal(name, **{mode: 1, "SourceAudioS3Key": None})
    assert "SourceVideoS3Key" in refusal(name, **{mode: 2, "SourceVideoS3Key": None})
    with pytest.raises(RefusedMessageError, match="mp3"):
        resolve(name, **{mode: 1, "SourceAudioS3Key": "a.mp4"})
    assert len(resolve(name, **{mode: 2, "SourceAudioS3Key": "a.mp4"}).media) == 3
    values = resolve(name, **{mode: 3, "SourceAudioS3Key": None, "SourceVideoS3Key": ""}).values
    assert values["sourceAudio"] == "example-10-minutes-of-silence.mp3"
    assert values["sourceVideo"] == "example-video.mp4"


@pytest.mark.reference_graphs
@pytest.mark.parametrize("workflow", BACKENDS)
def test_each_graph_takes_its_inputs(workflow: str):
    manifest = CATALOG.workflow(workflow)
    inputs = resolve(workflow)
    values = {**inputs.values, **{m.input: f"uploaded-{m.input}" for m in inputs.media}}
    values |= {"seed": 4711, "outputPrefix": inputs.output_prefix}
    graph = render_prompt(manifest, CATALOG.graph(workflow), values)
    taken = [value for node in graph.values() for value in node["inputs"].values()]
    assert [m.input for m in inputs.media if f"uploaded-{m.input}" not in taken] == []
    assert 4711 in taken
    titles = [node["_meta"]["title"] for node in graph.values()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("workflow", sorted(w.workflow for w in CATALOG))
def test_roles_are_the_contracts(workflow: str):
    roles = dict(CATALOG.workflow(workflow).outputs.roles)
    expected = {}
    if workflow.startswith("photo-make-up"):
        expected = {
            OutputRole.MAIN: "_608x1080",
            OutputRole.COVER: "_608x418",
            OutputRole.THUMBNAIL: "_128x128",
        }
    if workflow in MASKED:
        expected[OutputRole.MASK] = "_mask"
    assert roles == expected

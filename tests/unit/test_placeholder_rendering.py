"""Graphs with placeholders, against plain text replacement by the backend's contract.

The values are worked out here once more, from the contract's tables; nothing of the package's own
reading of messages is used for it. What a text's double quotes do to plain replacement is what
ml-service does better, so the oracle's texts have none.
"""

import json
import re
import shutil
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from posixpath import basename, splitext
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.import_graphs import import_graphs
from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.graph_faults import find_faults, find_unused_inputs
from ml_service.domain.graphs import Graph, read_graph
from ml_service.domain.job_requests import read_job_request
from ml_service.domain.rendering import render_prompt
from tests.makers import BUCKET, CATALOG, PARTIAL_NAME, PROJECT

SAMPLES = PROJECT.parent / "shared" / "workflow-samples"

SHAPES = {
    "latent-sync": "A",
    "latent-sync-text": "B",
    "video-on-output-audio": "B",
    "video-on-output-text": "B",
    "sonic-text": "C",
    "sonic-audio": "C",
    "still-image-audio": "C",
    "still-image-text": "C",
    "mm-audio": "C",
    "video-live-portrait": "D",
    "flux-prompt": "E",
    "flux-photo-prompt": "E",
    "flux-photo-redux-style": "F",
    "photo-pulid-2": "F",
    "photo-pulid-3": "F",
    "photo-make-up-thumbnails": "F",
    "photo-make-up-eyebrows-thumbnails": "F",
    "photo-make-up-eyelashes-eyeshadow-thumbnails": "F",
    "photo-make-up-lips-thumbnails": "F",
    "photo-make-up-skin-thumbnails": "F",
    "photo-ace-plus": "G",
    "music-gen": "H",
}
UPLOADS_AUDIO = {"sonic-audio", "still-image-audio", "video-on-output-audio", "mm-audio"}
"""Beside latent-sync: every workflow of B and C but those that speak a text."""
SPEAKS = {"latent-sync-text", "sonic-text", "still-image-text", "video-on-output-text"}
SUFFIXES = ("_608x1080", "_608x418", "_128x128", "_mask")

TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\\_')
    | st.sampled_from("\t\n"),
    max_size=40,
).filter(str.strip)
NAMES = st.text(string.ascii_letters + string.digits + " .-", min_size=1, max_size=12).map(
    lambda name: f"x{name}x"
)
SECONDS = st.integers(0, 40) | st.floats(0, 40).map(lambda seconds: round(seconds, 2))
MODES = st.integers(-1, 60)
BLANK = st.sampled_from(["", " ", "\n\t"])


def keys(*extensions: str) -> st.SearchStrategy[str]:
    return st.builds("in/{}.{}".format, NAMES, st.sampled_from(extensions))


PHOTOS, VIDEOS, SOUNDS = keys("jpg", "PNG", "webp", "jpeg"), keys("mp4"), keys("mp3", "MP3")
VIDEO_KEYS = VIDEOS | keys("mov", "v2") | NAMES.map(lambda name: f"in/{name}-")
MEMBERS: Mapping[str, Mapping[str, st.SearchStrategy[Any]]] = {
    "A": {
        "VideoS3Key": VIDEO_KEYS,
        "AudioS3Key": SOUNDS,
        "StartTimeSeconds": SECONDS,
        "ResultVideoDurationSeconds": SECONDS,
    },
    "B": {
        "VideoS3Key": VIDEO_KEYS,
        "AudioS3Key": SOUNDS,
        "PromptText": TEXTS | BLANK,
        "ContextValues": st.lists(MODES, max_size=3),
        "AudioStartTime": SECONDS,
        "AudioDuration": SECONDS,
    },
    "C": {
        "InputS3Key": PHOTOS,
        "AudioS3Key": SOUNDS,
        "PromptText": TEXTS | BLANK,
        "ContextValues": st.lists(MODES, max_size=3),
        "AudioStartTime": SECONDS,
        "AudioDuration": SECONDS,
    },
    "D": {
        "InputS3Key": VIDEOS,
        "SourceVideoS3Key": VIDEOS,
        "SourceAudioS3Key": SOUNDS,
        "SourceAudioStartTime": SECONDS,
        "SourceAudioDuration": SECONDS,
        "LivePortraitAudioInputModeContextValue": MODES,
        "LivePortraitCopperModeContextValue": MODES,
        "LivePortraitModelModeContextValue": MODES,
    },
    "E": {"InputS3Key": PHOTOS, "PromptText": TEXTS | BLANK},
    "F": {"InputS3Key": PHOTOS, "PromptText": TEXTS | BLANK},
    "G": {
        "InputS3Key": PHOTOS,
        "SourceS3Key": PHOTOS,
        "MaskS3Key": PHOTOS,
        "PromptText": TEXTS | BLANK,
        "AcePlusWardrobeModeContextValue": MODES,
        "AcePlusReferenceModeContextValue": st.sampled_from([0, 1, 3]),
        "AcePlusMaskModeContextValue": MODES,
    },
    "H": {"InputS3Key": VIDEOS, "PromptText": TEXTS | BLANK, "BackGroundMusicContextValue": MODES},
}
LEFT_OUT = re.compile("PromptText|ContextValue|Start|Duration")
"""Members that a message may lack, or have as null."""


@st.composite
def payloads(draw: st.DrawFn, workflow: str) -> dict[str, Any]:
    shape = SHAPES[workflow]
    payload = {
        "Env": "dev",
        "S3Bucket": BUCKET,
        "GroupId": draw(st.integers(0, 10**9)),
        "PartialName": PARTIAL_NAME,
        **{name: draw(values) for name, values in MEMBERS[shape].items()},
    }
    if shape == "F":
        count = 2 if workflow == "photo-pulid-3" else 1
        payload["SourceS3Keys"] = draw(st.lists(PHOTOS, min_size=count, max_size=count))
    for name in filter(LEFT_OUT.search, list(payload)):
        match draw(st.sampled_from(["given", "given", "given", "null", "absent"])):
            case "null":
                payload[name] = None
            case "absent":
                del payload[name]
    if shape == "D" and payload.get("LivePortraitAudioInputModeContextValue") == 3:
        del payload["SourceAudioS3Key"], payload["SourceVideoS3Key"]
    if workflow == "mm-audio" and draw(st.booleans()):
        del payload["AudioS3Key"]
    if shape == "G" and payload.get("AcePlusMaskModeContextValue") != 2:
        del payload["MaskS3Key"]
    return payload


def split(key: str) -> tuple[str, str]:
    return splitext(basename(key))


def in_range(value: int | None, last: int, default: int) -> int:
    return value if value is not None and 1 <= value <= last else default


def replace_by_contract(workflow: str, payload: dict[str, Any], seed: int) -> dict[str, Any]:
    """Section 4 of the contract: what each placeholder of a workflow's file becomes."""
    shape = SHAPES[workflow]
    start = f"{payload['GroupId']}-{workflow}"
    main = payload.get("VideoS3Key") or payload.get("InputS3Key", "")
    if shape in "AB" and not main.endswith("mp4"):
        main += "/video_raw.mp4"
    values: dict[str, Any] = {"seed": seed}
    if workflow == "flux-prompt":
        prefix = f"{start}-{PARTIAL_NAME}"
    else:
        stem, extension = split(main)
        prefix = f"{start}-{stem}-{PARTIAL_NAME}"
        values |= dict.fromkeys(("input", "image", "video"), prefix + extension)
    values["outputPrefix"] = prefix
    if shape not in "AD":
        text = re.sub(r"[\t\r\n]+", " ", payload.get("PromptText") or "")
        # The default texts are the manifests' own.
        default = CATALOG.workflow(workflow).inputs["promptText"].default
        values["promptText"] = text if text.strip() else default
    if shape == "A":
        values["audio"] = f"{prefix}-audio{split(payload['AudioS3Key'])[1]}"
    elif workflow in UPLOADS_AUDIO:
        key = payload.get("AudioS3Key")
        values["audio"] = f"{prefix}-{workflow}{split(key)[1]}" if key else "not-exists"
    if shape in "ABCD":
        begin, length, limit = {
            "A": ("StartTimeSeconds", "ResultVideoDurationSeconds", 10),
            "B": ("AudioStartTime", "AudioDuration", 15),
            "C": ("AudioStartTime", "AudioDuration", 15),
            "D": ("SourceAudioStartTime", "SourceAudioDuration", 15),
        }[shape]
        values["startTime"] = payload.get(begin) or 0
        values["duration"] = min(payload.get(length) or limit, limit)
    if shape == "F":
        names = [
            f"{prefix}-{workflow}-source-{index}{split(key)[1]}"
            for index, key in enumerate(payload["SourceS3Keys"])
        ]
        if workflow == "flux-photo-redux-style":
            values["source"] = names[0]
        elif workflow.startswith("photo-pulid"):
            values |= {f"source{index}": name for index, name in enumerate(names, 1)}
        else:
            values["makeup"] = names[0]
    return values | replace_modes(workflow, payload, prefix)


def replace_modes(workflow: str, payload: dict[str, Any], prefix: str) -> dict[str, Any]:
    given = payload.get("ContextValues") or []
    if workflow in SPEAKS:
        speaker, language = given if len(given) == 2 else (28, 2)
        return {
            "contextValue": in_range(speaker, 54, 28),
            "contextValue2": in_range(language, 9, 2),
        }
    if workflow == "mm-audio":
        audio, prompt = given if len(given) == 2 else (1, 1)
        return {"contextValue": in_range(audio, 8, 1), "contextValue2": in_range(prompt, 3, 1)}
    if workflow == "music-gen":
        return {"contextValue": in_range(payload.get("BackGroundMusicContextValue"), 3, 3)}
    if workflow == "photo-ace-plus":
        mask = payload.get("MaskS3Key")
        return {
            "contextValue": in_range(payload.get("AcePlusWardrobeModeContextValue"), 8, 1),
            "contextValue2": 1,
            "contextValue3": in_range(payload.get("AcePlusMaskModeContextValue"), 2, 1),
            # The names of these uploads are the project's own.
            "source": f"{prefix}-{workflow}-source{split(payload['SourceS3Key'])[1]}",
            "mask": f"{prefix}-{workflow}-mask{split(mask)[1]}" if mask else "not-exists",
        }
    if workflow == "video-live-portrait":
        sound = payload.get("SourceAudioS3Key")
        video = payload.get("SourceVideoS3Key")
        return {
            "contextValue": in_range(payload.get("LivePortraitAudioInputModeContextValue"), 3, 1),
            "contextValue2": in_range(payload.get("LivePortraitCopperModeContextValue"), 2, 1),
            "contextValue3": in_range(payload.get("LivePortraitModelModeContextValue"), 2, 1),
            "sourceAudio": f"{prefix}-{workflow}-source-audio{split(sound)[1]}"
            if sound
            else "example-10-minutes-of-silence.mp3",
            "sourceVideo": f"{prefix}-{workflow}-source-video.mp4"
            if video
            else "example-video.mp4",
        }
    return {}


def replace_text(text: str, values: Mapping[str, Any]) -> Any:
    for name, value in values.items():
        # The backend writes 2.0 as 2.
        is_whole = isinstance(value, float) and value.is_integer()
        text = text.replace(f"___{name}___", str(int(value) if is_whole else value))
    return json.loads(text)


def write_graph(values: Mapping[str, Any]) -> str:
    """A file with every placeholder in every form: alone, within a text, deep inside, bare."""
    nodes = []
    for number, (name, value) in enumerate(values.items(), start=10):
        mark = f"___{name}___"
        forms = [
            f'"alone": "{mark}"',
            f'"within": "a {mark}_b {mark}"',
            f'"deep": {{"x": ["{mark}"]}}',
        ]
        if not isinstance(value, str):
            forms += [f'"bare": {mark}', f'"bare_deep": {{"x":{mark} }}']
            forms += [f'"minus": -{mark}', f'"list": {{"__value__": ["1", {mark}]}}']
        nodes.append(
            f'  "{number}": {{\n    "inputs": {{{", ".join(forms)}, "from": ["1", 0]}},\n'
            f'    "class_type": "Unknown {number}", "_meta": {{"title": "{name} 🎥 {mark}"}}\n  }}'
        )
    savers = ", ".join(f'"{suffix}": "___outputPrefix___{suffix}"' for suffix in SUFFIXES)
    nodes.append(f'  "1": {{"inputs": {{{savers}}}, "class_type": "Image Saver"}}')
    return "{\n" + ",\n".join(nodes) + "\n}"


def render(workflow: str, graph: Graph, payload: dict[str, Any], seed: int) -> Any:
    manifest = CATALOG.workflow(workflow)
    body = json.dumps(
        {"Subject": manifest.subjects[0], "MessageId": "m", "Payload": json.dumps(payload)}
    )
    request = read_job_request(
        body, sqs_message_id="s", catalog=CATALOG, input_buckets=frozenset({BUCKET})
    )
    assert request.workflow is manifest
    inputs = request.inputs
    uploaded = {media.input: media.upload_name for media in inputs.media}
    values = {**inputs.values, **uploaded, "seed": seed, "outputPrefix": inputs.output_prefix}
    return render_prompt(manifest, graph, values)


def test_the_oracle_knows_every_workflow_of_the_backend():
    assert set(SHAPES) == {w.workflow for w in CATALOG if w.subjects}


@pytest.mark.parametrize("workflow", SHAPES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), seed=st.integers(0, 2**31 - 2))
def test_filling_gives_what_text_replacement_gives(workflow: str, data: st.DataObject, seed: int):
    payload = data.draw(payloads(workflow))
    values = replace_by_contract(workflow, payload, seed)
    text = write_graph(values)
    graph = read_graph(text)
    manifest = CATALOG.workflow(workflow)

    assert [str(fault) for fault in find_faults(manifest, graph)] == []
    assert find_unused_inputs(manifest, graph) == []
    assert render(workflow, graph, payload, seed) == replace_text(text, values)


NAMINGS = [
    "{}.json".format,
    lambda name: f"{name.replace('-', '_')}.JSON",
    lambda name: f"{''.join(map(str.title, name.split('-')))} (2).json",
]


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), naming=st.sampled_from(NAMINGS), mark=st.sampled_from(["", "\ufeff"]))
def test_a_file_for_every_workflow_is_imported_checked_and_filled_without_an_edit(
    data: st.DataObject, naming: Callable[[str], str], mark: str
):
    payload = {workflow: data.draw(payloads(workflow)) for workflow in SHAPES}
    values = {name: replace_by_contract(name, payload[name], 7) for name in SHAPES}
    texts = {name: write_graph(values[name]) for name in SHAPES}
    with TemporaryDirectory() as place:
        folder, workflows = Path(place) / "graphs", Path(place) / "workflows"
        folder.mkdir()
        shutil.copytree(PROJECT / "workflows", workflows)
        for name, text in texts.items():
            content = (mark + text.replace("\n", "\r\n")).encode()
            (folder / naming(name)).write_bytes(content)
        report = import_graphs(folder, workflows)
        catalog = load_catalog(workflows)

    assert [(file.path.name, file.faults) for file in report.refused] == []
    assert report.missing == ["text-to-image"]
    for name, text in texts.items():
        rendered = render(name, catalog.graph(name), payload[name], 7)
        assert rendered == replace_text(text, values[name])


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not beside the project")
@pytest.mark.parametrize("workflow", ["latent-sync", "flux-prompt", "photo-pulid-2"])
@settings(max_examples=15, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31 - 2))
def test_real_files_too(workflow: str, data: st.DataObject, seed: int):
    text = (SAMPLES / f"{workflow}.json").read_text(encoding="utf-8")
    payload = data.draw(payloads(workflow))
    values = replace_by_contract(workflow, payload, seed)

    assert render(workflow, read_graph(text), payload, seed) == replace_text(text, values)


HOSTILE = [
    'say "hi" and \\ and \\"',
    'x"}}, "9": {"class_type": "SaveImage", "inputs": {}}, "y": {"a": "',
    "___seed___ ___outputPrefix___ ___promptText___",
    "{{seed}} ${x} $.Task %seed% {prefix}",
    "\u202eעברית\u200b 👩‍👩‍👧 e\u0301",
    "line\nbreak\tand\rmore",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_prompt_text_is_one_string_whatever_it_says(text: str):
    values = {"promptText": "plain", "seed": 1, "outputPrefix": "p"}
    graph = read_graph(write_graph(values))
    payload = {"GroupId": 7, "PartialName": PARTIAL_NAME, "S3Bucket": BUCKET}
    plain = render("flux-prompt", graph, {**payload, "PromptText": "plain"}, 5)
    hostile = render("flux-prompt", graph, {**payload, "PromptText": text}, 5)

    joined = re.sub(r"[\t\r\n]+", " ", text)
    node = hostile["10"]["inputs"]
    assert node["alone"] == joined
    assert node["within"] == f"a {joined}_b {joined}"
    assert shape_of(hostile) == shape_of(plain)
    assert hostile["11"] == plain["11"]


def shape_of(value: Any) -> Any:
    """A graph with every text taken out."""
    if isinstance(value, dict):
        return {name: shape_of(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape_of(item) for item in value]
    return type(value)

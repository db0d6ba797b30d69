import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from local.comfyui.audio_clips import silence, write_mp3
from local.comfyui.simulator import running_simulator
from tests.unit.comfyui_simulator.simulator_client import (
    Graph,
    SimulatorClient,
    node,
    text_to_image_graph,
)


@pytest.fixture
def lenient(tmp_path: Path) -> Iterator[SimulatorClient]:
    with running_simulator(tmp_path / "server", allow_unknown_nodes=True) as server:
        yield SimulatorClient(server.url)


def png(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, "png")
    return buffer.getvalue()


def outputs(client: SimulatorClient, graph: Graph) -> dict[str, Any]:
    entry = client.run(graph)
    assert entry["status"]["completed"] is True, entry["status"]
    shown: dict[str, Any] = entry["outputs"]
    return shown


# A custom checkpoint loader and sampler between stock nodes.
CUSTOM: Graph = text_to_image_graph()
CUSTOM["4"]["class_type"] = "EfficientLoader"
CUSTOM["3"]["class_type"] = "FancySampler"


def test_a_graph_of_custom_and_stock_nodes_gives_a_picture(lenient: SimulatorClient) -> None:
    (item,) = outputs(lenient, CUSTOM)["9"]["images"]

    assert item["filename"] == "kite_00001_.png"
    assert Image.open(io.BytesIO(lenient.download(item))).size == (96, 64)


@pytest.mark.parametrize("class_type", ["KSampler", "CheckpointLoaderSimple"])
def test_a_stock_node_samples_with_what_custom_nodes_give(
    lenient: SimulatorClient, class_type: str
) -> None:
    graph = text_to_image_graph()
    for item in graph.values():
        if item["class_type"] not in (class_type, "EmptyLatentImage", "SaveImage"):
            item["class_type"] = f"My{item['class_type']}"
    (item,) = outputs(lenient, graph)["9"]["images"]

    assert Image.open(io.BytesIO(lenient.download(item))).size == (96, 64)


def test_a_model_that_is_not_there_is_rehearsed_too(lenient: SimulatorClient) -> None:
    graph = text_to_image_graph()
    graph["4"]["inputs"]["ckpt_name"] = "FLUX1\\mine.safetensors"

    assert outputs(lenient, graph)


def test_without_the_option_the_first_custom_node_is_refused(client: SimulatorClient) -> None:
    answer = client.post("/prompt", {"prompt": CUSTOM})

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "missing_node_type"
    assert answer.json()["error"]["extra_info"]["class_type"] == "FancySampler"


def test_a_picture_that_a_custom_node_is_given_comes_out_of_it(lenient: SimulatorClient) -> None:
    lenient.upload("me.png", png("teal"))
    graph = {
        "1": node("LoadImage", image="me.png"),
        "2": node("ApplyPulidFlux", image=["1", 0], weight=0.9),
        "3": node("FancyFaceRestore", image=["2", 0]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="out"),
    }
    picture = Image.open(io.BytesIO(lenient.download(outputs(lenient, graph)["4"]["images"][0])))

    assert picture.size == (40, 30)
    assert picture.getpixel((0, 0)) == (0, 128, 128)


def test_a_custom_loader_reads_an_uploaded_file_and_notices_a_new_one(
    lenient: SimulatorClient,
) -> None:
    graph = {
        "1": node("LoadImageFromAnywhere", path="a.png"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="out"),
    }
    for color, pixel in (("red", (255, 0, 0)), ("lime", (0, 255, 0))):
        lenient.upload("a.png", png(color), overwrite="true")
        (item,) = outputs(lenient, graph)["2"]["images"]
        picture = Image.open(io.BytesIO(lenient.download(item)))
        assert picture.getpixel((0, 0)) == pixel


def test_a_video_combiner_writes_a_film_with_sound_under_gifs(
    lenient: SimulatorClient, tmp_path: Path
) -> None:
    write_mp3(silence(1.0, 44100, 2), tmp_path / "a.mp3", {}, "128k")
    lenient.upload("a.mp3", (tmp_path / "a.mp3").read_bytes())
    graph = {
        "1": node("EmptyImage", width=64, height=64, batch_size=8, color=255),
        "2": node("VHS_LoadAudioUpload", audio="a.mp3"),
        "3": node(
            "VHS_VideoCombine",
            images=["1", 0],
            audio=["2", 0],
            frame_rate=8,
            filename_prefix="talk",
            format="video/h264-mp4",
            save_output=True,
        ),
    }
    (item,) = outputs(lenient, graph)["3"]["gifs"]

    assert (item["filename"], item["type"]) == ("talk_00001_.mp4", "output")
    assert (item["format"], item["frame_rate"]) == ("video/h264-mp4", 8.0)
    with av.open(io.BytesIO(lenient.download(item))) as film:
        assert len(list(film.decode(video=0))) == 8
        assert film.streams.audio


@pytest.mark.parametrize(
    ("class_type", "inputs", "kind", "folder"),
    [
        ("Image Save Plus", {"images": ["1", 0]}, "images", "output"),
        ("PreviewBridge", {"images": ["1", 0]}, "images", "temp"),
        ("ShowText", {"text": "hello", "any": ["2", 0]}, "text", None),
        ("ExportSound", {"audio": ["3", 0]}, "audio", "output"),
        ("Mystery", {"image": ["1", 0], "filename_prefix": "m"}, "images", "output"),
    ],
)
def test_an_output_node_is_known_by_its_class_or_inputs(
    lenient: SimulatorClient, class_type: str, inputs: Any, kind: str, folder: str | None
) -> None:
    graph = {
        "1": node("EmptyImage", width=16, height=16, batch_size=1, color=0),
        "2": node("PrimitiveString", value="x"),
        "3": node("EmptyAudio", duration=1.0, sample_rate=44100, channels=1),
        "9": node(class_type, **inputs),
    }
    shown = outputs(lenient, graph)["9"]

    assert shown.keys() == {kind}
    if folder is not None:
        assert shown[kind][0]["type"] == folder
        assert lenient.download(shown[kind][0])
    else:
        assert shown[kind] == ["hello", "x"]


def test_what_is_cached_under_a_key_is_known_until_the_server_restarts(tmp_path: Path) -> None:
    keep = {
        "1": node("VAELoader", vae_name="ae.safetensors"),
        "2": node("CacheBackendData //Pack", key="vae", tag="", data=["1", 0]),
    }
    ask = {
        "1": node("IsCached //Pack", key="vae"),
        "2": node("Display Any (pack)", output="", source=["1", 0]),
    }
    with running_simulator(tmp_path, allow_unknown_nodes=True) as server:
        client = SimulatorClient(server.url)
        assert outputs(client, ask) == {"2": {"text": ["false"]}}
        assert outputs(client, keep) == {}
        assert outputs(client, ask) == {"2": {"text": ["true"]}}
        server.restart()
        assert outputs(SimulatorClient(server.url), ask) == {"2": {"text": ["false"]}}


SAMPLES = Path(__file__).parents[4] / "shared" / "workflow-samples"


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no graphs of a user beside the project")
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_a_users_graph_is_rehearsed(lenient: SimulatorClient, path: Path) -> None:
    lenient.upload("in.png", png("teal"))
    text = re.sub("___(input|image|source[0-9]?)___", "in.png", path.read_text())
    text = re.sub("___(promptText|outputPrefix|video|audio)___", "x", text)
    graph = json.loads(re.sub("___[a-zA-Z]+___", "7", text))

    assert any(outputs(lenient, graph).values()) or path.stem.startswith("cache-")


def test_nodes_that_hand_on_are_no_outputs(lenient: SimulatorClient) -> None:
    graph = {
        "1": node("ConditioningCombine", conditioning_1=["2", 0], conditioning_2=["2", 0]),
        "2": node("CLIPTextEncode", text="a"),
    }
    answer = lenient.post("/prompt", {"prompt": graph})

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "prompt_no_outputs"


def test_stock_nodes_are_checked_as_ever_among_custom_ones(lenient: SimulatorClient) -> None:
    graph = CUSTOM | {"9": node("SaveImage", filename_prefix="cat")}
    answer = lenient.post("/prompt", {"prompt": graph})

    assert answer.status_code == 400
    assert answer.json()["node_errors"]["9"]["errors"][0]["type"] == "required_input_missing"


@pytest.mark.parametrize("kind", ["AUDIO", "VIDEO", "STRING", "INT", "FLOAT", "BOOLEAN", "MASK"])
def test_a_custom_node_feeds_a_stock_node_of_any_kind(lenient: SimulatorClient, kind: str) -> None:
    picture = node("EmptyImage", width=["1", 0] if kind == "INT" else 8, height=8, batch_size=1)
    picture["inputs"]["color"] = 0
    takers = {
        "AUDIO": node("SaveAudio", audio=["1", 0], filename_prefix="a"),
        "VIDEO": node(
            "SaveVideo", video=["1", 0], filename_prefix="a", format="auto", codec="auto"
        ),
        "STRING": node("StringReplace", string=["1", 0], find="a", replace="b"),
        "INT": picture,
        "FLOAT": node("ImageScaleBy", image=["8", 0], upscale_method="area", scale_by=["1", 0]),
        "BOOLEAN": node("ImageStitch", image1=["8", 0], match_image_size=["1", 0]),
        "MASK": node("InvertMask", mask=["1", 0]),
    }
    if kind == "BOOLEAN":
        takers[kind]["inputs"] |= {
            "direction": "right",
            "spacing_width": 0,
            "spacing_color": "white",
            "image2": ["8", 0],
        }
    graph = {
        "1": node("MakeAnything", n=1),
        "2": takers[kind],
        "3": node("PreviewAny", source=["2", 0]),
        "8": node("EmptyImage", width=8, height=8, batch_size=1, color=0),
    }
    if kind in ("AUDIO", "VIDEO"):
        del graph["3"]

    assert outputs(lenient, graph)

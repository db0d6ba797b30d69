import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from local.comfyui.audio_clips import silence, write_mp3
from local.comfyui.video_clips import VideoClip, write_mp4
from tests.unit.comfyui_simulator.simulator_client import SimulatorClient

WORKFLOWS = Path(__file__).parents[3] / "workflows"
GRAPHS = sorted(path for path in WORKFLOWS.glob("*/*.json") if path.parent.name != "schema")


def make_input(class_type: str, path: Path) -> bytes:
    """Return a small file that the loader of this class takes."""
    if class_type == "LoadImage":
        Image.new("RGB", (60, 90), "teal").save(path.with_suffix(".png"))
        return path.with_suffix(".png").read_bytes()
    if class_type == "LoadAudio":
        write_mp3(silence(2.0, 44100, 2), path.with_suffix(".mp3"), {}, "128k")
        return path.with_suffix(".mp3").read_bytes()
    assert class_type == "LoadVideo"
    frames = (Image.new("RGB", (64, 48), "navy"),) * 10
    write_mp4(VideoClip(frames, Fraction(10)), path.with_suffix(".mp4"), {}, lambda: None)
    return path.with_suffix(".mp4").read_bytes()


def open_media(name: str, content: bytes) -> None:
    """Read a result to its end. Raises an error where it is not what its name says."""
    if name.endswith((".png", ".webp", ".jpg")):
        Image.open(io.BytesIO(content)).load()
        return
    with av.open(io.BytesIO(content), "r") as container:
        assert list(container.decode(container.streams[0]))


@pytest.mark.reference_graphs
@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_a_shipped_graph_runs_and_its_files_open(
    client: SimulatorClient, tmp_path: Path, path: Path
) -> None:
    graph: dict[str, Any] = json.loads(path.read_text())
    for node_id, node in graph.items():
        for name, value in node["inputs"].items():
            if node["class_type"].startswith("Load") and isinstance(value, str):
                content = make_input(node["class_type"], tmp_path / f"made-{node_id}")
                node["inputs"][name] = client.upload(value, content).json()["name"]
    entry = client.run(graph)

    assert entry["status"]["completed"] is True
    files = [
        item
        for shown in entry["outputs"].values()
        for items in shown.values()
        for item in items
        if isinstance(item, dict)
    ]
    assert files
    for item in files:
        open_media(item["filename"], client.download(item))

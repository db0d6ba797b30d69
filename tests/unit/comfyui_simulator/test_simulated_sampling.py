"""Graphs of stock nodes that sample: their pictures show what they were made with."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from local.comfyui.sampled_pictures import draw_picture
from local.comfyui.simulator import running_simulator
from tests.unit.comfyui_simulator.simulator_client import (
    Graph,
    SimulatorClient,
    node,
    text_to_image_graph,
)

WHITE = (255, 255, 255)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_simulator(tmp_path_factory.mktemp("sampling")) as server:
        yield SimulatorClient(server.url)


def sampled(server: SimulatorClient, graph: Graph) -> Image.Image:
    """Run a graph that saves one picture and return it."""
    entry = server.run(graph)
    assert entry["status"]["completed"] is True, entry["status"]
    ((item,),) = (shown["images"] for shown in entry["outputs"].values())
    return Image.open(io.BytesIO(server.download(item)))


def letters(picture: Image.Image) -> Image.Image:
    """Return where a picture is as white as the letters on it."""
    brightness = picture.convert("RGB").convert("L")
    return brightness.point([0] * 200 + [255] * 56)


def shows(picture: Image.Image, caption: str) -> bool:
    """Tell whether a picture has these letters; their edges differ with the colour behind them."""
    expected = letters(draw_picture(picture.size, "any", caption))
    assert count_white(expected)
    difference = ImageChops.difference(letters(picture), expected)
    return count_white(difference) < count_white(expected) / 4


def count_white(picture: Image.Image) -> int:
    return picture.histogram()[255]


def test_a_text_to_image_graph_is_run_and_shows_its_text_and_seed(server: SimulatorClient) -> None:
    picture = sampled(server, text_to_image_graph("a red kite", 7, 320, 200))

    assert (picture.format, picture.size) == ("PNG", (320, 200))
    assert shows(picture, "seed 7\na red kite")
    assert not shows(picture, "seed 1\na blue boat")


def test_equal_graphs_make_equal_pictures_and_others_do_not(server: SimulatorClient) -> None:
    def colour(**more: Any) -> Any:
        graph = text_to_image_graph()
        for name, value in more.items():
            holder = next(item for item in graph.values() if name in item["inputs"])
            holder["inputs"][name] = value
        return sampled(server, graph).getpixel((0, 0))

    first = colour()
    assert first == colour(filename_prefix="another")
    changed = [colour(seed=8), colour(text="b"), colour(steps=9), colour(sampler_name="ddim")]
    assert len({first, *changed}) == 5


def test_the_parts_of_flux_make_a_picture_of_seed_and_text(server: SimulatorClient) -> None:
    graph = {
        "1": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "2": node(
            "DualCLIPLoader",
            clip_name1="t5xxl_fp16.safetensors",
            clip_name2="clip_l.safetensors",
            type="flux",
        ),
        "3": node("VAELoader", vae_name="ae.safetensors"),
        "4": node("CLIPTextEncode", text="a blue kite", clip=["2", 0]),
        "5": node("FluxGuidance", conditioning=["4", 0], guidance=3.5),
        "6": node(
            "ModelSamplingFlux",
            model=["1", 0],
            max_shift=1.15,
            base_shift=0.5,
            width=1024,
            height=1024,
        ),
        "7": node("BasicGuider", model=["6", 0], conditioning=["5", 0]),
        "8": node("KSamplerSelect", sampler_name="euler"),
        "9": node("BasicScheduler", model=["6", 0], scheduler="simple", steps=20, denoise=1),
        "10": node("RandomNoise", noise_seed=12),
        "11": node("EmptySD3LatentImage", width=320, height=208, batch_size=1),
        "12": node(
            "SamplerCustomAdvanced",
            noise=["10", 0],
            guider=["7", 0],
            sampler=["8", 0],
            sigmas=["9", 0],
            latent_image=["11", 0],
        ),
        "13": node("VAEDecode", samples=["12", 1], vae=["3", 0]),
        "14": node("SaveImage", images=["13", 0], filename_prefix="flux"),
    }
    picture = sampled(server, graph)

    assert shows(picture, "seed 12\na blue kite")


def test_a_lora_a_style_and_a_smaller_denoise_change_the_picture(server: SimulatorClient) -> None:
    plain = sampled(server, text_to_image_graph())
    graph = text_to_image_graph() | {
        "20": node(
            "LoraLoader",
            model=["4", 0],
            clip=["4", 1],
            lora_name="lcm-lora-sdv1-5.safetensors",
            strength_model=0.8,
            strength_clip=1,
        ),
        "21": node("EmptyImage", width=100, height=70, batch_size=1, color=0x00FF00),
        "22": node("VAEEncode", pixels=["21", 0], vae=["4", 2]),
    }
    graph["3"]["inputs"] |= {"model": ["20", 0], "denoise": 0.0, "latent_image": ["22", 0]}
    kept = sampled(server, graph)
    assert (kept.size, kept.getpixel((0, 0))) == ((96, 64), (0, 255, 0))
    graph["3"]["inputs"]["denoise"] = 1.0
    assert sampled(server, graph).getpixel((0, 0)) != plain.getpixel((0, 0))


def test_inpainting_changes_what_the_mask_shows(server: SimulatorClient) -> None:
    graph = text_to_image_graph("", 1) | {
        "20": node("EmptyImage", width=96, height=64, batch_size=1, color=0x00FF00),
        "21": node("SolidMask", value=0.0, width=96, height=64),
        "22": node("SolidMask", value=1.0, width=48, height=64),
        "23": node(
            "MaskComposite",
            destination=["21", 0],
            source=["22", 0],
            x=48,
            y=0,
            operation="add",
        ),
        "24": node(
            "InpaintModelConditioning",
            positive=["6", 0],
            negative=["7", 0],
            vae=["4", 2],
            pixels=["20", 0],
            mask=["23", 0],
            noise_mask=True,
        ),
        "25": node("DifferentialDiffusion", model=["4", 0]),
    }
    graph["3"]["inputs"] |= {
        "model": ["25", 0],
        "positive": ["24", 0],
        "negative": ["24", 1],
        "latent_image": ["24", 2],
    }
    picture = sampled(server, graph)

    assert picture.getpixel((10, 60)) == (0, 255, 0)
    assert picture.getpixel((90, 60)) != (0, 255, 0)


def test_a_batch_has_as_many_different_pictures_and_can_be_scaled(server: SimulatorClient) -> None:
    graph = text_to_image_graph() | {
        "20": node(
            "LatentUpscale",
            samples=["3", 0],
            upscale_method="bislerp",
            width=192,
            height=0,
            crop="disabled",
        )
    }
    graph["5"]["inputs"]["batch_size"] = 2
    graph["8"]["inputs"]["samples"] = ["20", 0]
    (shown,) = server.run(graph)["outputs"].values()
    first, second = (Image.open(io.BytesIO(server.download(item))) for item in shown["images"])

    assert first.size == second.size == (192, 128)
    assert first.getpixel((0, 0)) != second.getpixel((0, 0))


@pytest.mark.parametrize("text", ["", "ein\nDrachen", "風箏 🪁", "\ud800 alone", "x" * 10_000])
def test_any_text_can_be_drawn(text: str) -> None:
    assert draw_picture((96, 64), "any", f"seed 1\n{text}").size == (96, 64)


def test_a_model_list_is_what_its_server_was_given(tmp_path: Path) -> None:
    with running_simulator(tmp_path, models={"checkpoints": ("mine.safetensors",)}) as server:
        client = SimulatorClient(server.url)
        info = client.get("/object_info/CheckpointLoaderSimple").json()
        listed = client.get("/models/checkpoints").json()
        refused = client.post("/prompt", {"prompt": text_to_image_graph()})

    names = info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    assert names == listed == ["mine.safetensors"]
    assert refused.status_code == 400
    assert refused.json()["node_errors"]["4"]["errors"][0]["type"] == "value_not_in_list"

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.comfyui_simulator.simulator_client import SimulatorClient, picture_graph


def png(color: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (8, 8), color).save(buffer, "png")
    return buffer.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def test_an_upload_keeps_other_files_of_its_name(client: SimulatorClient, tmp_path: Path) -> None:
    def upload(color: str) -> str:
        return str(client.upload("a.png", png(color)).json()["name"])

    assert upload("red") == "a.png"
    assert upload("red") == "a.png"
    assert upload("green") == "a (1).png"
    assert upload("blue") == "a (2).png"
    assert upload("green") == "a (1).png"
    assert len(list((tmp_path / "input").iterdir())) == 3


@pytest.mark.parametrize(
    ("value", "name"), [("true", "a.png"), ("1", "a.png"), ("True", "a (1).png")]
)
def test_overwrite_takes_two_spellings(client: SimulatorClient, value: str, name: str) -> None:
    client.upload("a.png", png("red"))

    answer = client.upload("a.png", png("blue"), overwrite=value).json()

    assert answer == {"name": name, "subfolder": "", "type": "input"}
    assert client.download({"filename": name, "type": "input"}) == png("blue")


def test_a_subfolder_is_made_and_part_of_the_name_for_a_loader(client: SimulatorClient) -> None:
    answer = client.upload("a.png", png("red"), subfolder="t/j").json()
    graph = picture_graph() | {"1": {"class_type": "LoadImage", "inputs": {"image": "t/j/a.png"}}}

    assert answer == {"name": "a.png", "subfolder": "t/j", "type": "input"}
    assert client.run(graph)["status"]["completed"] is True


def test_a_name_may_hold_folders_that_are_there(client: SimulatorClient) -> None:
    assert client.upload("sub/a.png", png("red")).status_code == 500
    client.upload("a.png", png("red"), subfolder="sub")

    assert client.upload("sub/a.png", png("red")).json()["name"] == "sub/a.png"
    assert client.upload("sub/a.png", png("blue")).json() == {
        "name": "sub/a (1).png",
        "subfolder": "",
        "type": "input",
    }


@pytest.mark.parametrize(
    ("fields", "status"), [({"subfolder": "../.."}, 400), ({"type": "nonsense"}, 500)]
)
def test_an_upload_to_a_strange_place_is_refused(
    client: SimulatorClient, fields: dict[str, str], status: int
) -> None:
    assert client.upload("a.png", b"x", **fields).status_code == status


def test_an_upload_above_the_limit_is_refused(client: SimulatorClient) -> None:
    response = client.upload("a.png", bytes(100 * 1024 * 1024 + 1))

    assert response.status_code == 413
    assert response.text == "Maximum request body size 104857600 exceeded."


def mask(alpha: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, alpha)).save(buffer, "png")
    return buffer.getvalue()


def test_a_mask_gives_its_transparency_to_the_original(client: SimulatorClient) -> None:
    photo = client.run(picture_graph(0xFF0000, width=8, height=8))["outputs"]["2"]["images"][0]
    answer = client.upload("mask.png", mask(77), "mask", original_ref=json.dumps(photo)).json()
    image = opened(client.download({"filename": answer["name"], "type": "input"}))

    assert image.getpixel((0, 0)) == (255, 0, 0, 77)
    assert json.loads(image.text["prompt"]).keys() == {"1", "2"}


def test_a_mask_keeps_other_files_of_its_name_as_any_upload(client: SimulatorClient) -> None:
    client.upload("photo.png", png("red"))

    def upload(alpha: int, **fields: str) -> str:
        reference = json.dumps({"filename": "photo.png [input]"})
        answer = client.upload("m.png", mask(alpha), "mask", original_ref=reference, **fields)
        return str(answer.json()["name"])

    def alpha_of(name: str) -> object:
        return opened(client.download({"filename": name, "type": "input"})).getpixel((0, 0))

    assert (upload(1), upload(2), upload(3, overwrite="1")) == ("m.png", "m (1).png", "m.png")
    assert alpha_of("m (1).png") == (255, 0, 0, 2)
    assert alpha_of("m.png") == (255, 0, 0, 3)


@pytest.mark.parametrize(
    "reference", [{"filename": "no.png"}, {"filename": "../a.png"}, {"filename": "a", "type": "x"}]
)
def test_a_mask_without_its_original_is_answered_and_not_stored(
    client: SimulatorClient, reference: dict[str, str]
) -> None:
    answer = client.upload("m.png", mask(1), "mask", original_ref=json.dumps(reference))

    assert (answer.status_code, answer.json()["name"]) == (200, "m.png")
    assert client.get("/view?filename=m.png&type=input").status_code == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("type=output", 404),
        ("filename=", 400),
        ("filename=/etc/passwd", 400),
        ("filename=../x", 400),
        ("filename=a.png&type=bogus", 400),
        ("filename=a.png&subfolder=../../..", 403),
        ("filename=a.png&subfolder=/etc", 403),
        ("filename=a.png", 404),
    ],
)
def test_view_refuses(client: SimulatorClient, query: str, status: int) -> None:
    response = client.get(f"/view?{query}")

    assert response.status_code == status
    assert response.content == b""


def test_view_answers_a_file_with_type_and_name(client: SimulatorClient) -> None:
    item = client.run(picture_graph())["outputs"]["2"]["images"][0]
    response = client.get("/view", params=item)

    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["Content-Disposition"] == 'filename="ml_00001_.png"'
    assert response.headers["Accept-Ranges"] == "bytes"
    assert opened(response.content).getpixel((0, 0)) == (0, 0, 255)
    part = client.get("/view", params=item, headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")


def test_view_reads_the_folder_from_the_name(client: SimulatorClient) -> None:
    client.upload("a.png", png("red"))

    assert client.get("/view?filename=a.png [input]").content == png("red")


def test_view_sends_a_web_page_as_plain_bytes(client: SimulatorClient) -> None:
    client.upload("page.html", b"<script>")

    response = client.get("/view?filename=page.html&type=input")
    assert response.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(("wanted", "kind"), [("webp;50", "WEBP"), ("jpeg;90", "JPEG")])
def test_view_makes_previews(client: SimulatorClient, wanted: str, kind: str) -> None:
    client.upload("a.png", png("red"))
    response = client.get("/view", params={"filename": "a.png", "type": "input", "preview": wanted})

    assert response.headers["Content-Type"] == f"image/{kind.lower()}"
    assert opened(response.content).format == kind


def test_view_takes_channels_apart(client: SimulatorClient) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (1, 2, 3, 44)).save(buffer, "png")
    client.upload("a.png", buffer.getvalue())

    def channel(name: str) -> Image.Image:
        query = {"filename": "a.png", "type": "input", "channel": name}
        return opened(client.get("/view", params=query).content)

    assert channel("rgb").getpixel((0, 0)) == (1, 2, 3)
    assert channel("a").getpixel((0, 0)) == (0, 0, 0, 44)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:1", 403),
        ("http://127.0.0.1:1", 403),
        ("http://evil.example", 403),
        ("http://127.0.0.1", 200),
        ("", 200),
        ("same", 200),
    ],
)
def test_pages_of_other_origins_are_refused(
    client: SimulatorClient, origin: str, status: int
) -> None:
    sent = client.url if origin == "same" else origin

    assert client.get("/prompt", headers={"Origin": sent}).status_code == status


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1", 200), ("[::1]:1", 403), ("10.0.0.1:8188", 200)]
)
def test_an_origin_counts_where_the_host_is_this_machine(
    client: SimulatorClient, host: str, status: int
) -> None:
    headers = {"Host": host, "Origin": "http://127.0.0.1:1"}

    assert client.get("/prompt", headers=headers).status_code == status


def test_system_stats_tell_that_this_is_a_simulator(client: SimulatorClient) -> None:
    stats = client.get("/system_stats").json()

    assert stats["system"]["comfyui_version"] == "0.12.1"
    assert stats["system"]["argv"] == ["ml-service", "comfyui"]
    assert stats["devices"][0]["type"] == "cpu"


def test_object_info_lists_uploaded_files_by_kind(client: SimulatorClient) -> None:
    for name in ("b.png", "a.webp", "c.mp3", "d.mp4"):
        client.upload(name, b"x")
    info = client.get("/object_info").json()

    assert info["LoadImage"]["input"]["required"]["image"][0] == ["a.webp", "b.png"]
    assert info["LoadAudio"]["input"]["required"]["audio"][1]["options"] == ["c.mp3", "d.mp4"]
    assert info["LoadVideo"]["input"]["required"]["file"][1]["options"] == ["d.mp4"]

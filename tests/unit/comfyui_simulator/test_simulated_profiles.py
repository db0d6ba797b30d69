"""Where the versions differ: each test names what the older and the newer one answers."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from local.comfyui.simulator import running_simulator
from tests.unit.comfyui_simulator.simulator_client import (
    Graph,
    SimulatorClient,
    node,
    picture_graph,
    text_to_image_graph,
)

OLD, NEW = "0.12", "0.38"


@contextmanager
def running(profile: str, tmp_path: Path, seconds: float = 0.0) -> Iterator[SimulatorClient]:
    with running_simulator(tmp_path, prompt_seconds=seconds, profile=profile) as server:
        yield SimulatorClient(server.url)


@pytest.fixture(params=[OLD, NEW])
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def either(profile: str, tmp_path: Path) -> Iterator[SimulatorClient]:
    with running(profile, tmp_path) as client:
        yield client


@pytest.fixture
def new(tmp_path: Path) -> Iterator[SimulatorClient]:
    with running(NEW, tmp_path, 1.0) as client:
        yield client


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.mark.parametrize(
    "wrong", ["", "mine", 7, True, "6FA459EA-EE8A-3CA4-894E-DB77E160355E", "6fa459eaee8a3ca4894e"]
)
def test_the_newer_version_takes_only_canonical_ids(new: SimulatorClient, wrong: Any) -> None:
    answer = new.post("/prompt", {"prompt": picture_graph(), "prompt_id": wrong})

    assert answer.status_code == 400
    assert answer.json() == {
        "error": {
            "type": "invalid_prompt_id",
            "message": "prompt_id must be a valid UUID",
            "details": "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
            "omit it to let the server generate one",
            "extra_info": {},
        },
        "node_errors": {},
    }


def test_null_as_an_id_is_a_text_or_none_at_all(either: SimulatorClient, profile: str) -> None:
    answer = either.post("/prompt", {"prompt": picture_graph(), "prompt_id": None}).json()

    if profile == OLD:
        assert answer["prompt_id"] == "None"
    else:
        assert str(uuid.UUID(answer["prompt_id"])) == answer["prompt_id"]


def test_a_canonical_id_is_kept_by_both(either: SimulatorClient) -> None:
    chosen = new_id()

    assert either.submit(picture_graph(), prompt_id=chosen) == chosen


def test_a_cached_prompt_without_client_lists_outputs_in_the_newer_version(
    either: SimulatorClient, profile: str
) -> None:
    first = either.run(picture_graph(), client_id=None)
    second = either.run(picture_graph(), client_id=None)

    assert second["status"]["completed"] is True
    assert second["outputs"] == ({} if profile == OLD else first["outputs"])


def test_a_cached_prompt_with_a_client_lists_outputs_in_both(either: SimulatorClient) -> None:
    first = either.run(picture_graph())

    assert either.run(picture_graph())["outputs"] == first["outputs"]


def test_a_cycle_is_named_in_the_newer_version(either: SimulatorClient, profile: str) -> None:
    graph = picture_graph() | {
        "1": node("ImageInvert", image=["3", 0]),
        "3": node("ImageInvert", image=["1", 0]),
    }
    answer = either.post("/prompt", {"prompt": graph}).json()

    assert answer["error"]["type"] == "prompt_outputs_failed_validation"
    if profile == OLD:
        assert answer["node_errors"] == {}
        return
    # Node 2 saves what node 1 makes of what node 3 makes of what node 1 makes.
    assert answer["node_errors"].keys() == {"1", "3"}
    for node_id, entry in answer["node_errors"].items():
        assert entry["dependent_outputs"] == ["2"]
        assert entry["errors"] == [
            {
                "type": "dependency_cycle",
                "message": "Dependency cycle detected",
                "details": "1 (ImageInvert) -> 3 (ImageInvert) -> 1 (ImageInvert)",
                "extra_info": {"node_id": node_id, "cycle_nodes": ["1", "3"]},
            }
        ]


LORA = "lcm-lora-sdv1-5.safetensors"


def lora_graph(**loras: Any) -> Graph:
    graph = text_to_image_graph()
    graph["10"] = {"class_type": "LoadLoraModel", "inputs": {"model": ["4", 0], **loras}}
    graph["3"]["inputs"]["model"] = ["10", 0]
    return graph


def test_rows_of_loras_are_applied_in_the_newer_version(
    either: SimulatorClient, profile: str
) -> None:
    rows = {f"loras.{row}.{name}": value for row in (0, 2) for name, value in LORA_ROW.items()}
    answer = either.post("/prompt", {"prompt": lora_graph(**rows)})

    if profile == OLD:
        assert answer.json()["error"]["type"] == "missing_node_type"
        assert either.get("/object_info/LoadLoraModel").json() == {}
        return
    assert either.await_history(answer.json()["prompt_id"])["status"]["completed"] is True
    info = either.get("/object_info/LoadLoraModel").json()["LoadLoraModel"]
    kind, options = info["input"]["required"]["loras"]
    assert (kind, options["min"], options["max"]) == ("COMFY_DYNAMICGROUP_V3", 1, 20)
    assert LORA in options["template"]["required"]["lora_name"][1]["options"]


LORA_ROW = {"lora_name": LORA, "strength": 0.5}


@pytest.mark.parametrize(
    ("loras", "name", "details"),
    [
        ({}, "loras", "received 0 rows; expected between 1 and 20"),
        ({"loras.x.strength": 1}, "loras.x.strength", "Invalid DynamicGroup input key"),
        ({"loras.01.strength": 1}, "loras.01.strength", "Invalid DynamicGroup input key"),
        ({"loras.0.weight": 1}, "loras.0.weight", "Invalid DynamicGroup input key"),
        ({"loras.20.strength": 1}, "loras.20.strength", "exceeds the index limit of 19 (max=20)"),
    ],
)
def test_rows_that_a_node_does_not_take_are_an_invalid_dynamic_input(
    new: SimulatorClient, loras: Any, name: str, details: str
) -> None:
    (error,) = new.post("/prompt", {"prompt": lora_graph(**loras)}).json()["node_errors"]["10"][
        "errors"
    ]

    assert (error["type"], error["message"]) == ("invalid_dynamic_input", "Invalid dynamic input")
    assert details in error["details"]
    assert error["extra_info"] == {"input_name": name}


def test_a_row_is_checked_field_by_field(new: SimulatorClient) -> None:
    loras = {"loras.0.lora_name": "absent.safetensors", "loras.1.strength": 101}
    answer = new.post("/prompt", {"prompt": lora_graph(**loras)}).json()

    assert [
        (error["type"], error["extra_info"]["input_name"])
        for error in answer["node_errors"]["10"]["errors"]
    ] == [
        ("value_not_in_list", "loras.0.lora_name"),
        ("required_input_missing", "loras.0.strength"),
        ("required_input_missing", "loras.1.lora_name"),
        ("value_bigger_than_max", "loras.1.strength"),
    ]
    assert answer["node_errors"]["10"]["errors"][1]["details"] == "strength"


def test_an_unknown_class_is_a_missing_node_type_in_both(either: SimulatorClient) -> None:
    answer = either.post("/prompt", {"prompt": {"1": node("NoSuchNode")}}).json()

    assert answer["error"]["type"] == "missing_node_type"
    assert answer["error"]["extra_info"]["node_id"] == "1"


def test_versions_and_features_are_those_of_the_profile(
    either: SimulatorClient, profile: str
) -> None:
    version = either.get("/system_stats").json()["system"]["comfyui_version"]
    features = either.get("/features").json()

    assert version.startswith(f"{profile}.")
    assert features["max_upload_size"] == 104857600
    assert ("assets" in features) is (profile == NEW)


def test_only_the_newer_version_cancels_jobs(either: SimulatorClient, profile: str) -> None:
    one = either.post(f"/api/jobs/{new_id()}/cancel")
    several = either.post("/api/jobs/cancel", {"job_ids": [new_id()]})

    if profile == OLD:
        assert (one.status_code, several.status_code) == (404, 405)
    else:
        assert (one.status_code, one.json()) == (200, {"cancelled": False})
        assert (several.status_code, several.json()) == (200, {"cancelled": False})


def test_a_job_is_cancelled_whether_it_waits_or_runs_and_not_when_it_has_ended(
    new: SimulatorClient,
) -> None:
    running, waiting = new_id(), new_id()
    new.submit(picture_graph(1), prompt_id=running)
    new.await_running(running)
    time.sleep(0.1)
    new.submit(picture_graph(2), prompt_id=waiting)

    assert new.post(f"/api/jobs/{waiting}/cancel").json() == {"cancelled": True}
    assert new.get("/prompt").json()["exec_info"]["queue_remaining"] == 1
    assert new.post(f"/api/jobs/{running}/cancel").json() == {"cancelled": True}
    entry = new.await_history(running, 0.8)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert new.post(f"/api/jobs/{running}/cancel").json() == {"cancelled": False}
    assert new.get(f"/history/{waiting}").json() == {}


def test_several_jobs_are_cancelled_at_once(new: SimulatorClient) -> None:
    ids = [new_id() for _ in range(3)]
    for color, prompt_id in enumerate(ids):
        new.submit(picture_graph(color), prompt_id=prompt_id)
    new.await_running(ids[0])

    assert new.post("/api/jobs/cancel", {"job_ids": ids[1:]}).json() == {"cancelled": True}
    assert new.get("/queue").json()["queue_pending"] == []
    assert new.await_history(ids[0])["status"]["completed"] is True


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ("{", {"error": "Request body must be valid JSON"}),
        ("{}", {"error": "job_ids must be a list"}),
        ("[]", {"error": "job_ids must be a list"}),
        ('{"job_ids": "x"}', {"error": "job_ids must be a list"}),
        (
            '{"job_ids": ["x", {"y": 1}]}',
            {"error": "job_ids contains invalid id(s)", "invalid_ids": ["x", "{'y': 1}"]},
        ),
    ],
)
def test_malformed_ids_to_cancel_are_refused(
    new: SimulatorClient, body: str, refusal: dict[str, Any]
) -> None:
    answer = new.post("/api/jobs/cancel", data=body)

    assert (answer.status_code, answer.json()) == (400, refusal)


def test_to_cancel_no_job_at_all_is_allowed(new: SimulatorClient) -> None:
    assert new.post("/api/jobs/cancel", {"job_ids": []}).json() == {"cancelled": False}


def test_the_newer_version_tells_more_of_a_waiting_job(
    either: SimulatorClient, profile: str, tmp_path: Path
) -> None:
    with running(profile, tmp_path / "slow", 0.5) as client:
        running_id, waiting_id = client.submit(picture_graph(1)), client.submit(picture_graph(2))
        client.await_running(running_id)
        job = client.get(f"/api/jobs/{waiting_id}").json()
    extra = (
        {} if profile == OLD else {"previewable_outputs_count": 0, "workflow": job.get("workflow")}
    )

    assert (
        job
        == {
            "id": waiting_id,
            "status": "pending",
            "priority": 1,
            "create_time": job["create_time"],
            "outputs_count": 0,
        }
        | extra
    )
    if profile == NEW:
        assert job["workflow"]["prompt"] == picture_graph(2)


def test_a_text_counts_as_an_output_in_the_older_version_only(
    either: SimulatorClient, profile: str
) -> None:
    prompt_id = either.submit({"1": node("PreviewAny", source="x" * 2000)})
    either.await_history(prompt_id)
    job = either.get(f"/api/jobs/{prompt_id}").json()

    if profile == OLD:
        assert job["outputs_count"] == 1
        assert "preview_output" not in job
    else:
        assert (job["outputs_count"], job["previewable_outputs_count"]) == (0, 0)
        assert len(job["preview_output"].pop("content")) == 1024
        assert job["preview_output"] == {"nodeId": "1", "mediaType": "text", "truncated": True}


def test_a_film_of_a_custom_node_is_previewed(profile: str, tmp_path: Path) -> None:
    graph = {
        "1": node("EmptyImage", width=16, height=16, batch_size=2, color=0),
        "2": node("VHS_VideoCombine", images=["1", 0], frame_rate=8, filename_prefix="film"),
    }
    with running_simulator(tmp_path, profile=profile, allow_unknown_nodes=True) as server:
        client = SimulatorClient(server.url)
        prompt_id = client.submit(graph)
        client.await_history(prompt_id)
        preview = client.get(f"/api/jobs/{prompt_id}").json()["preview_output"]

    assert (preview["mediaType"], preview["format"]) == ("gifs", "video/h264-mp4")


def test_the_name_of_a_3d_file_counts_as_the_file_in_the_newer_version(
    either: SimulatorClient, profile: str
) -> None:
    prompt_id = either.submit({"1": node("PreviewAny", source="chair.glb")})
    either.await_history(prompt_id)
    job = either.get(f"/api/jobs/{prompt_id}").json()
    file = {"filename": "chair.glb", "type": "output", "subfolder": "", "mediaType": "3d"}

    assert job["outputs_count"] == 1
    assert either.get(f"/history/{prompt_id}").json()[prompt_id]["outputs"] == {
        "1": {"text": ["chair.glb"]}
    }
    if profile == OLD:
        assert job["outputs"] == {"1": {"text": ["chair.glb"]}}
    else:
        assert job["outputs"] == {"1": {"text": [file]}}
        assert job["previewable_outputs_count"] == 1
        assert job["preview_output"] == file | {"nodeId": "1"}


def test_a_saved_picture_is_previewed_before_a_temporary_one(
    either: SimulatorClient, profile: str
) -> None:
    graph = {
        "1": picture_graph()["1"],
        "2": node("PreviewImage", images=["1", 0]),
        "3": node("SaveImage", images=["1", 0], filename_prefix="ml"),
    }
    prompt_id = either.submit(graph)
    either.await_history(prompt_id)
    job = either.get(f"/api/jobs/{prompt_id}").json()

    assert job["outputs_count"] == 2
    assert job["preview_output"]["type"] == "output"
    assert job.get("previewable_outputs_count") == (None if profile == OLD else 2)

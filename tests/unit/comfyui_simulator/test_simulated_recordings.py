"""Replays what a real server was asked, and compares the simulator's answers with the real ones."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from local.comfyui.simulator import running_simulator
from tests.unit.comfyui_simulator.recorded_nodes import make_recorded_nodes
from tests.unit.comfyui_simulator.recordings import (
    RECORDINGS,
    TIME_KEYS,
    assert_same_answer,
    comparable,
    comparable_history,
    needs_recordings,
    read_if_recorded,
    recording,
)
from tests.unit.comfyui_simulator.simulator_client import SimulatorClient, node

pytestmark = needs_recordings


@pytest.fixture
def recorded_client(tmp_path: Path) -> Iterator[SimulatorClient]:
    """A client of a server that has the test nodes of the recording too."""
    with running_simulator(tmp_path, custom_nodes=make_recorded_nodes()) as server:
        yield SimulatorClient(server.url)


RAW_BODIES = {
    "validation_bad_json": b"{bad",
    "validation_text_plain_ct": json.dumps(
        {
            "prompt": {
                "1": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
                "2": node("SaveImage", images=["1", 0], filename_prefix="v"),
            }
        }
    ).encode(),
    "interrupt_json_null": b"null",
    "interrupt_global_nobody": b"",
    "queue_no_body": b"",
}

IDLE_REQUESTS = [
    "accept_gzip",
    "api_job_unknown",
    "api_jobs_bad_status",
    "api_jobs_empty",
    "free",
    "history_empty",
    "interrupt_global_nobody",
    "interrupt_idle",
    "interrupt_json_null",
    "jobs_no_prefix",
    "models",
    "method_not_allowed",
    "not_found",
    "object_info_SaveImage",
    "object_info_missing",
    "prompt_client_chosen_id",
    "prompt_client_chosen_id_nonuuid",
    "prompt_get",
    "prompt_partial_execution_targets",
    "queue_clear",
    "queue_empty",
    "queue_no_body",
    "validation_bad_json",
    "validation_bad_linked_input",
    "validation_custom_validation_failed_loadimage",
    "validation_invalid_input_type",
    "validation_json_list",
    "validation_link_to_missing_node",
    "validation_missing_class_type",
    "validation_no_inputs_key",
    "validation_no_outputs",
    "validation_no_prompt_key",
    "validation_number_string",
    "validation_partially_valid",
    "validation_prompt_is_list",
    "validation_required_input_missing",
    "validation_text_plain_ct",
    "validation_ui_format_workflow",
    "validation_unknown_node_type",
    "validation_value_bigger_than_max",
    "validation_value_not_in_list",
    "validation_value_smaller_than_min",
    "view_abs",
    "view_bad_type",
    "view_dotdot",
    "view_empty_filename",
    "view_no_filename",
    "view_sub_traversal",
]


@pytest.mark.parametrize("name", IDLE_REQUESTS)
def test_an_idle_server_answers_as_recorded(client: SimulatorClient, name: str) -> None:
    recorded = recording(name)
    request = recorded["request"]
    body: dict[str, Any] = {"json": request["json"]}
    if name in RAW_BODIES:
        body = {"data": RAW_BODIES[name], "headers": {"Content-Type": "text/plain"}}

    assert_same_answer(client.request(request["method"], request["path"], **body), recorded)


@pytest.mark.parametrize("origin", ["127.0.0.1_8188", "localhost_8188"])
def test_another_origin_is_refused_as_recorded(client: SimulatorClient, origin: str) -> None:
    recorded = recording(f"origin_{origin}")
    address = origin.replace("_", ":")
    answer = client.get(recorded["request"]["path"], headers={"Origin": f"http://{address}"})

    assert_same_answer(answer, recorded)


class Replay:
    """Runs a recorded prompt and compares everything that the recordings tell of it."""

    def __init__(self, client: SimulatorClient, name: str) -> None:
        self._client = client
        self._name = name
        self._posted = read_if_recorded(f"prompt_post_{name}")
        self._entry: dict[str, Any] | None = None
        if (history := read_if_recorded(f"history_{name}")) is not None:
            (self._entry,) = history.values()

    def run(self) -> None:
        body, recorded_id = self._recorded_request()
        client_id = body["client_id"]
        with ExitStack() as stack:
            mine = stack.enter_context(self._client.events(client_id))
            other = stack.enter_context(self._client.events(f"observer-{client_id}"))
            greetings = [mine.read()], [other.read()]
            if self._negotiates_features():
                mine.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
                greetings[0].append(mine.read())
            answer = self._client.post("/prompt", body)
            if self._posted is not None:
                assert_same_answer(answer, self._posted)
            prompt_id = answer.json()["prompt_id"]
            renamed = {prompt_id: "id", recorded_id: "id"}
            messages = greetings[0] + mine.read_until_done(prompt_id)
            observed = greetings[1] + [other.read() for _ in range(3)]
        self._compare_messages(messages, renamed)
        self._compare(f"ws_{self._name}_other_client", observed, renamed)
        if self._entry is not None:
            entry = self._client.await_history(prompt_id)
            assert comparable_history(entry, renamed) == comparable_history(self._entry, renamed)
        self._compare_job(prompt_id, renamed)

    def _recorded_request(self) -> tuple[dict[str, Any], str]:
        """Return what was posted, put together where only its history was kept, and its id."""
        if self._posted is not None:
            return self._posted["request"]["json"], self._posted["body"]["prompt_id"]
        assert self._entry is not None
        _, prompt_id, prompt, extra_data, _ = self._entry["prompt"]
        sent = {key: extra_data[key] for key in extra_data if key not in TIME_KEYS | {"client_id"}}
        body = {"prompt": prompt, "client_id": extra_data["client_id"], "extra_data": sent}
        return body, prompt_id

    def _negotiates_features(self) -> bool:
        recorded = read_if_recorded(f"ws_{self._name}")
        return recorded is not None and recorded[1]["type"] == "feature_flags"

    def _compare_messages(self, messages: list[dict[str, Any]], renamed: dict[str, str]) -> None:
        name = f"ws_{self._name}"
        if self._name == "multi_output_2":
            # Cached outputs come in the order of a set, so only their number and content agree.
            recorded = recording(name)
            assert [item["type"] for item in messages] == [item["type"] for item in recorded]
            assert executed_outputs(messages) == executed_outputs(recorded)
        else:
            self._compare(name, messages, renamed)

    def _compare_job(self, prompt_id: str, renamed: dict[str, str]) -> None:
        answer = read_if_recorded(f"api_job_{self._name}")
        if answer is None:
            return
        job = self._client.get(f"/api/jobs/{prompt_id}").json()
        recorded = answer["body"]
        job["priority"] = recorded["priority"]
        if self._name == "multi_output_2":
            # As above: which output comes first is chance.
            job["preview_output"] = recorded["preview_output"]
        assert comparable(job, renamed) == comparable(recorded, renamed)

    def _compare(self, name: str, received: list[Any], renamed: dict[str, str]) -> None:
        recorded = read_if_recorded(name)
        if recorded is not None:
            assert comparable(received, renamed) == comparable(recorded, renamed)


def executed_outputs(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        message["data"]["node"]: comparable(message["data"]["output"])
        for message in messages
        if message["type"] == "executed"
    }


@pytest.mark.parametrize(
    "names",
    [
        ["empty_save_1", "empty_save_2"],
        ["batch4_1"],
        ["subfolder_prefix_1"],
        ["multi_output_1", "multi_output_2"],
        ["preview_1"],
        ["animated_webp_1"],
        ["audio_1"],
        ["video_1"],
        ["text_preview_1", "text_preview_2"],
        ["sleep_progress_1", "sleep_progress_2"],
        ["fail_exception_1", "fail_oom_1"],
        ["fail_oom_stock_1"],
        ["fail_partial_1", "fail_partial_2"],
    ],
    ids=lambda names: names[0],
)
def test_a_prompt_is_reported_as_recorded(
    recorded_client: SimulatorClient, names: list[str]
) -> None:
    """The websocket of its client, that of another one, the history and the job all agree."""
    for name in names:
        Replay(recorded_client, name).run()


def test_uploads_are_answered_as_recorded(client: SimulatorClient) -> None:
    def check(name: str, file_name: str, content: bytes, **fields: str) -> None:
        assert_same_answer(client.upload(file_name, content, **fields), recording(name))

    check("upload_image_ok", "a38762.png", b"one")
    check("upload_image_same_name_new_content", "a38762.png", b"two")
    check("upload_image_same_name_third", "a38762.png", b"three")
    check("upload_image_overwrite_true", "a38762.png", b"four", overwrite="true")
    check("upload_image_subfolder", "b38762.png", b"five", subfolder="t/j")
    check("upload_image_not_an_image", "corrupt.png", b"six")
    check("upload_image_traversal_name", "..%2F..%2Fb.png", b"seven")
    check("upload_image_traversal_sub", "c.png", b"eight", subfolder="../../..")
    check("upload_mask", "mask38762.png", b"nine", kind="mask", original_ref='{"filename": "no"}')
    assert_same_answer(
        client.post("/upload/image", {"image": "x"}), recording("upload_image_json_body")
    )
    no_file = client.post("/upload/image", files={"other": ("a.png", b"x")})
    assert_same_answer(no_file, recording("upload_image_no_file"))
    text_field = client.post("/upload/image", files={"image": (None, "text")})
    assert_same_answer(text_field, recording("upload_image_string_field"))


def test_history_in_parts_is_answered_as_recorded(client: SimulatorClient) -> None:
    recorded = recording("history_max_items_2_offset0")
    for name in ("empty_save_1", "empty_save_2"):
        body = recording(f"prompt_post_{name}")
        prompt_id = body["body"]["prompt_id"]
        client.await_history(client.submit(**prompt_arguments(body), prompt_id=prompt_id))
    answer = client.get(recorded["request"]["path"])

    assert comparable(answer.json()) == comparable(recorded["body"])


def prompt_arguments(posted: dict[str, Any]) -> dict[str, Any]:
    body = posted["request"]["json"]
    return {"graph": body["prompt"]} | {key: body[key] for key in body if key != "prompt"}


def test_an_id_that_is_no_uuid_is_found_as_recorded(client: SimulatorClient) -> None:
    posted = recording("prompt_client_chosen_id_nonuuid")
    recorded = recording("history_nonuuid")
    # The recorded prompt was answered from the cache, and its file was not the first of its name.
    client.run(**prompt_arguments(posted) | {"prompt_id": "before"})
    prompt_id = client.submit(**prompt_arguments(posted))
    client.await_history(prompt_id)
    answer = client.get(recorded["request"]["path"]).json()[prompt_id]
    expected = recorded["body"][prompt_id]
    expected["outputs"]["2"]["images"][0]["filename"] = "ml_00001_.png"

    assert comparable_history(answer, {}) == comparable_history(expected, {})
    deletion = recording("history_delete")
    assert_same_answer(client.post("/history", deletion["request"]["json"]), deletion)
    assert client.get(recorded["request"]["path"]).json() == {}


@pytest.mark.parametrize(
    "name", ["history_no_client_id_run1", "validation_partially_valid_history"]
)
def test_a_history_entry_is_as_recorded(client: SimulatorClient, name: str) -> None:
    expected = recording(name)
    _, recorded_id, prompt, extra_data, outputs = expected["prompt"]
    body = {"prompt": prompt}
    if "client_id" in extra_data:
        body["client_id"] = extra_data["client_id"]
    prompt_id = client.post("/prompt", body).json()["prompt_id"]
    entry = client.await_history(prompt_id)
    (output,) = outputs
    # The recorded server had written files of this name before.
    expected["outputs"][output]["images"][0]["filename"] = entry["outputs"][output]["images"][0][
        "filename"
    ]

    renamed = {prompt_id: "id", recorded_id: "id"}
    assert comparable_history(entry, renamed) == comparable_history(expected, renamed)


def test_object_info_is_as_recorded(tmp_path: Path) -> None:
    recorded = recording("object_info_stock_nodes")
    expected = without_test_nodes(recorded.get("body", recorded))
    # The recorded server had no models.
    with running_simulator(tmp_path, models={}) as server:
        answered = SimulatorClient(server.url).get("/object_info").json()
    assert answered.keys() == expected.keys()
    for class_type, info in answered.items():
        # What the input folder held when it was recorded is no matter, nor are texts for people.
        for shown in (info, expected[class_type]):
            for name in ("image", "audio", "file"):
                if class_type.startswith("Load") and name in shown["input"]["required"]:
                    forget_files(shown["input"]["required"][name])
            if any(shown.get("output_tooltips", ())):
                del shown["output_tooltips"]
        assert comparable(info) == comparable(expected[class_type]), class_type


def without_test_nodes(known: dict[str, Any]) -> dict[str, Any]:
    return {name: info for name, info in known.items() if not name.startswith("ML")}


def forget_files(shown: list[Any]) -> None:
    if isinstance(shown[0], list):
        shown[0] = []
    shown[1].pop("options", None)


def test_system_stats_have_the_recorded_members(client: SimulatorClient) -> None:
    recorded = recording("system_stats")["body"]
    answered = client.get("/system_stats").json()

    assert answered["system"].keys() == recorded["system"].keys()
    assert answered["system"]["comfyui_version"] == recorded["system"]["comfyui_version"]
    assert answered["devices"][0].keys() == recorded["devices"][0].keys()


def test_feature_flags_are_answered_as_recorded(client: SimulatorClient) -> None:
    recorded = recording("ws_sleep_progress_1")
    with client.events("me") as events:
        events.read()
        events.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        assert events.read() == recorded[1]


@pytest.mark.parametrize("name", ["view_default_type", "view_output"])
def test_a_saved_picture_is_viewed_as_recorded(client: SimulatorClient, name: str) -> None:
    answer, recorded = view_of_a_saved_picture(client, name)
    content = recorded["body"].encode("latin-1")

    # All before the pixels: size, mode and the metadata; what follows differs by compressor.
    pixels = content.index(b"IDAT") - 4
    assert answer.content[:pixels] == content[:pixels]


@pytest.mark.parametrize("name", ["view_channel_rgb", "view_channel_a"])
def test_a_channel_of_a_saved_picture_is_viewed_as_recorded(
    client: SimulatorClient, name: str
) -> None:
    answer, recorded = view_of_a_saved_picture(client, name)
    shown, expected = (
        Image.open(io.BytesIO(content))
        for content in (answer.content, recorded["body"].encode("latin-1"))
    )

    assert (shown.mode, shown.size) == (expected.mode, expected.size)
    assert shown.tobytes() == expected.tobytes()


def view_of_a_saved_picture(
    client: SimulatorClient, name: str
) -> tuple[requests.Response, dict[str, Any]]:
    client.await_history(client.submit(**prompt_arguments(recording("prompt_post_empty_save_1"))))
    recorded = recording(name)
    answer = client.get(recorded["request"]["path"])
    assert answer.status_code == recorded["status"]
    for header in ("Content-Type", "Content-Disposition", "Accept-Ranges"):
        assert answer.headers.get(header) == recorded["headers"].get(header)
    return answer, recorded


# Of the pages for a browser the simulator has none.
NOT_REPLAYED = {"extensions"}


def test_every_recording_is_replayed() -> None:
    """A name, or the name of the run that it tells of, stands in one of the modules that replay."""
    here = Path(__file__).parent
    replaying = "test_simulated_recordings.py", "test_simulated_queue_recordings.py"
    quoted = set(
        re.findall(r'"([\w.]+)"', "".join((here / name).read_text() for name in replaying))
    )
    # Composed in the code from what stands in a list there.
    quoted |= {f"origin_{name}" for name in quoted} | {f"history_fail_{name}" for name in quoted}
    names = {path.stem for path in RECORDINGS.glob("*.json")} - NOT_REPLAYED
    runs = re.compile(r"^(ws|history|prompt_post|api_job)_|_other_client$")

    assert {name for name in names if {name, runs.sub("", name)}.isdisjoint(quoted)} == set()

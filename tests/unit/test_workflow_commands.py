"""ml-service workflows: list, render, check and import, as a user runs them."""

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from local.check_workflows import InstanceError
from local.graph_folder import GraphFolderError
from local.workflow_commands import app
from ml_service.adapters.workflow_files import load_warm_up
from ml_service.domain.errors import MlServiceError, RefusedMessageError, WorkflowError
from tests.makers import CATALOG, PARTIAL_NAME, PROJECT, make_body, make_payload

SHARED = PROJECT.parent / "shared"
SAMPLES = SHARED / "workflow-samples"
TEMPLATES = find_spec("comfyui_workflow_templates_json")

FLUX = """{
  "3": {"class_type": "RandomNoise", "inputs": {"noise_seed": ___seed___}},
  "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "___promptText___"}},
  "9": {"class_type": "Image Saver", "inputs": {"filename": "___outputPrefix____608x1080"}}
}"""
UI = '{"nodes": [{"id": 3, "type": "KSampler"}], "links": [], "version": 0.4}'
WARM = '{"1": {"class_type": "Loader", "inputs": {"key": "a"}}}'


def run(*arguments: object, text: str | None = None) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=text)
    if isinstance(result.exception, MlServiceError):
        raise result.exception
    return result


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    folder = tmp_path / "graphs"
    folder.mkdir()
    return folder


@pytest.fixture
def workflows(tmp_path: Path) -> Path:
    return shutil.copytree(PROJECT / "workflows", tmp_path / "workflows")


def test_every_workflow_is_listed():
    result = run("list")
    assert result.exit_code == 0
    assert all(w.workflow in result.output for w in CATALOG)


def test_a_message_is_rendered_as_it_would_be_posted(graphs: Path, tmp_path: Path):
    (graphs / "flux-prompt.json").write_text(FLUX)
    message = tmp_path / "message.json"
    message.write_text(make_body(payload=make_payload(PromptText='a "red"\nkite ___seed___ 🪁')))
    result = run("render", message, "--graphs", graphs, "--seed", 5)

    rendered = json.loads(result.output)
    assert [node["inputs"] for node in rendered.values()] == [
        {"noise_seed": 5},
        {"text": 'a "red" kite ___seed___ 🪁'},
        {"filename": f"42-flux-prompt-{PARTIAL_NAME}_608x1080"},
    ]


def test_half_an_emoji_in_a_graph_is_printed_as_json_has_it(graphs: Path):
    node = '"3": {"class_type": "RandomNoise", "_meta": {"title": "cut \\ud83c"}, '
    text = FLUX.replace('"3": {"class_type": "RandomNoise", ', node)
    (graphs / "flux-prompt.json").write_text(text)
    result = run("render", "-", "--graphs", graphs, text=make_body())
    assert json.loads(result.output)["3"]["_meta"]["title"] == "cut \ud83c"


@pytest.mark.reference_graphs
def test_a_message_may_come_from_standard_input_and_uploads_keep_the_contracts_names():
    rendered = json.loads(run("render", "-", text=make_body("latent-sync")).output)
    assert rendered["1"]["inputs"]["file"] == f"42-latent-sync-clip-{PARTIAL_NAME}.mp4"
    assert 0 <= rendered["7"]["inputs"]["value"] < 2**31 - 1


def test_a_native_messages_seed_is_kept_unless_another_is_given():
    text = json.dumps({"positive_prompt": "a red kite", "seed": 3})
    assert json.loads(run("render", "-", text=text).output)["7"]["inputs"]["value"] == 3
    seeded = run("render", "-", "--seed", 4, text=text)
    assert json.loads(seeded.output)["7"]["inputs"]["value"] == 4


def test_what_cannot_be_rendered_says_why(graphs: Path, tmp_path: Path):
    with pytest.raises(RefusedMessageError, match="Subject is unknown"):
        run("render", "-", text=make_body(Subject="x"))
    (graphs / "flux-prompt.json").write_text(UI)
    with pytest.raises(WorkflowError, match=r"flux-prompt.json: this is ComfyUI's UI format"):
        run("render", "-", "--graphs", graphs, text=make_body())
    with pytest.raises(GraphFolderError, match="is no folder"):
        run("render", "-", "--graphs", tmp_path / "absent", text=make_body())
    assert run("render", tmp_path / "absent.json").exit_code == 2


@pytest.mark.reference_graphs
def test_the_shipped_workflows_are_right():
    result = run("check")
    assert result.exit_code == 0
    assert result.output.endswith("23 of 23 files are right.\n")


@pytest.mark.reference_graphs
def test_a_fault_is_named_with_file_node_and_input(graphs: Path):
    (graphs / "flux-prompt.json").write_text(FLUX.replace("___promptText___", "___prompt___"))
    result = run("check", "--graphs", graphs)
    assert result.exit_code == 1
    assert (
        f"WRONG   {graphs / 'flux-prompt.json'}: node 4 (CLIPTextEncode), input text: ___prompt___ "
        "is no placeholder of this workflow, so nothing fills it; did you mean ___promptText___?"
    ) in result.output
    assert "22 of 23 files are right." in result.output


def test_a_wrong_manifest_or_catalog_is_named(workflows: Path):
    manifest = workflows / "pulid" / "flux-prompt.yaml"
    text = manifest.read_text()
    manifest.write_text(text.replace("expected_seconds: 20", "expected_seconds: soon"))
    result = run("check", "--workflows", workflows)
    assert result.exit_code == 1
    assert f"WRONG   {manifest}: expected_seconds: " in result.output

    rival = "ComfyUiMusicGenMessage"
    manifest.write_text(text.replace("ComfyUiFluxPromptMessage", rival))
    result = run("check", "--workflows", workflows)
    assert result.exit_code == 1
    assert f"Subject {rival} has several workflows" in result.output


def test_a_graph_without_a_manifest_is_named(workflows: Path):
    (workflows / "pulid" / "kite-poster.json").write_text(FLUX)
    (workflows / "pulid" / "kite-poster.yml").write_text("workflow: kite-poster")
    result = run("check", "--workflows", workflows)
    assert result.exit_code == 1
    path = workflows / "pulid" / "kite-poster.json"
    assert f"WRONG   {path}: no manifest: write kite-poster.yaml beside it" in result.output


@pytest.mark.reference_graphs
def test_files_are_taken_over_unchanged_by_their_names(graphs: Path, workflows: Path):
    (graphs / "more").mkdir()
    (graphs / "Flux_Prompt (API).JSON").write_text(FLUX)
    (graphs / "._flux-prompt.json").write_bytes(b"\x00\x05\x16\x07")
    (graphs / "is-cached-photo-make-up-instance.json").write_text(WARM)
    (graphs / "more" / "cache-components-lip-sync.json").write_text(WARM)
    result = run("import", graphs, "--workflows", workflows)

    assert result.exit_code == 0
    assert (workflows / "pulid" / "flux-prompt.json").read_text() == FLUX
    assert (workflows / "makeup" / "is-cached-photo-make-up-instance.json").read_text() == WARM
    assert (workflows / "lip-sync" / "cache-components-lip-sync.json").read_text() == WARM
    assert "No new graph for: flux-photo-prompt, " in result.output
    assert "No warm-up graph: is-cached (lip-sync), cache-components (makeup), " in result.output
    assert run("check", "--workflows", workflows).exit_code == 0


@pytest.mark.reference_graphs
@pytest.mark.parametrize(
    ("name", "fleet"),
    [
        ("is-cached-video-lip-sync-instance.json", "lip-sync"),
        ("is-cached-photo-pulid-instance.JSON", "pulid"),
        ("is-cached-photo-flux-instance.json", "pulid"),
        ("is-cached-photo-make-up-instance.json", "makeup"),
        ("is-cached-photo-ace-plus-instance.json", "makeup"),
    ],
)
def test_a_warm_up_graph_goes_to_the_fleet_that_its_name_means(
    graphs: Path, workflows: Path, name: str, fleet: str
):
    (graphs / name).write_text(WARM)
    assert run("import", graphs, "--workflows", workflows).exit_code == 0
    (check,) = load_warm_up(workflows, fleet).checks
    assert check == json.loads(WARM)


def test_a_prompt_files_name_means_its_workflow(graphs: Path, workflows: Path):
    shutil.copy(workflows / "pulid" / "text-to-image.json", graphs / "workflow_api.json")
    result = run("import", graphs, "--workflows", workflows)
    assert result.exit_code == 0
    assert f"as {workflows / 'pulid' / 'text-to-image.json'}" in result.output


def test_what_the_graph_does_not_take_is_said(graphs: Path, workflows: Path):
    (graphs / "flux-prompt.json").write_text(FLUX.replace("___seed___", "7"))
    result = run("import", graphs, "--workflows", workflows)
    assert "flux-prompt.json (does not take seed)" in result.output


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("flux-prompt.json", FLUX.replace("___promptText___", "___x___"), "___x___ is no placeh"),
        ("flux-prompt.json", UI, "UI format"),
        ("anything.json", UI, "UI format"),
        ("anything.json", FLUX, "it names no workflow"),
        ("flux-prompt.json", "{", "line 1 column 2: not valid JSON"),
        ("is-cached-somewhere.json", WARM, "a warm-up graph of no known fleet"),
        ("is-cached-pulid.json", FLUX, "nothing fills ___seed___ here"),
    ],
)
def test_what_cannot_be_taken_over_is_left_where_it_is(
    graphs: Path, workflows: Path, name: str, text: str, reason: str
):
    before = (workflows / "pulid" / "flux-prompt.json").read_text()
    (graphs / name).write_text(text)
    result = run("import", graphs, "--workflows", workflows)

    assert result.exit_code == 1
    assert f"REFUSED   {graphs / name}: " in result.output
    assert reason in result.output
    assert (workflows / "pulid" / "flux-prompt.json").read_text() == before


def test_a_file_in_another_encoding_is_named(graphs: Path):
    (graphs / "flux-prompt.json").write_text(FLUX, encoding="utf-16")
    result = run("check", "--graphs", graphs)
    assert f"{graphs / 'flux-prompt.json'}: not a text in UTF-8: save it as one" in result.output


def test_of_several_files_for_a_workflow_the_one_with_its_very_name_is_taken(
    graphs: Path, workflows: Path
):
    (graphs / "flux-prompt.json").write_text(FLUX)
    (graphs / "flux-prompt-old.json").write_text(FLUX)
    result = run("import", graphs, "--workflows", workflows)
    assert result.exit_code == 1
    assert "flux-prompt-old.json: not the only file for flux-prompt" in result.output
    assert (workflows / "pulid" / "flux-prompt.json").read_text() == FLUX


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not beside the project")
def test_real_files_are_imported_and_checked_without_an_edit(workflows: Path):
    result = run("import", SAMPLES, "--workflows", workflows)
    assert result.exit_code == 0
    assert "5 imported, 0 refused." in result.output
    assert run("check", "--workflows", workflows).exit_code == 0
    assert run("check", "--graphs", SAMPLES).exit_code == 0


@pytest.mark.skipif(
    TEMPLATES is None, reason="the package comfyui-workflow-templates-json is not installed"
)
def test_every_template_of_comfyui_is_refused_as_ui_format():
    (folder,) = TEMPLATES.submodule_search_locations
    lines = run("check", "--graphs", folder).output.splitlines()
    assert sum("this is ComfyUI's UI format" in line for line in lines) == 644
    others = {line.split(": ")[0] for line in lines if "not a graph" in line}
    assert len(others) == len(list(Path(folder).rglob("*.json"))) - 644
    assert all("/index" in line or "/fuse_options" in line for line in others)


@pytest.fixture
def instance() -> Iterator[str]:
    """A server that lists the node classes that a test gives it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            definitions: dict[str, Any] = {
                "RandomNoise": {
                    "input": {"required": {"noise_seed": ["INT"]}},
                    "output": ["NOISE"],
                },
                "CLIPTextEncode": {"input": {"required": {"text": ["STRING"], "clip": ["CLIP"]}}},
            }
            self.send_response(200 if self.path == "/object_info" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(definitions).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_graphs_are_held_against_a_live_instance(graphs: Path, instance: str):
    path = graphs / "flux-prompt.json"
    path.write_text(FLUX)
    result = run("check", "--graphs", graphs, "--instance", instance.removeprefix("http://"))
    assert result.exit_code == 1
    assert f"{path}: node 4 (CLIPTextEncode), input clip: it is missing" in result.output
    assert f"{path}: node 9 (Image Saver): the server does not have this class" in result.output


@pytest.mark.reference_graphs
def test_only_one_fleets_workflows_are_held_against_its_instance(graphs: Path, instance: str):
    (graphs / "is-cached-pulid.json").write_text(WARM)
    result = run("check", "--fleet", "lip-sync", "--graphs", graphs)
    assert result.output.endswith("5 of 5 files are right.\n")
    assert "is-cached" in run("check", "--fleet", "pulid", "--graphs", graphs).output
    with pytest.raises(WorkflowError, match="no fleet lips, only lip-sync, makeup, pulid"):
        run("check", "--fleet", "lips", "--instance", instance)


def test_an_instance_that_does_not_list_its_classes_is_named(instance: str):
    with pytest.raises(InstanceError, match="/x/object_info: 404"):
        run("check", "--instance", f"{instance}x")

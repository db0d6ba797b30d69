"""Other people's clients run against the simulator, unmodified, and get their pictures.

`make clients` runs these tests: they install the clients into environments of their own, by uv and
npm, which takes a minute and a package index.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from local.comfyui.profiles import PROFILES
from local.comfyui.simulator import RunningSimulator, running_simulator
from tests.unit.comfyui_simulator.simulator_client import text_to_image_graph

pytestmark = [
    pytest.mark.skipif(
        "INDEPENDENT_CLIENTS" not in os.environ, reason="make clients runs these tests"
    ),
    # The first of them installs the clients.
    pytest.mark.timeout(600),
]

PYTHON_CLIENTS = ("comfy-cli==1.23.0", "comfy-api-simplified==1.6.0")
NODE_CLIENTS = ("comfy-ui-client@0.1.2",)


API_SIMPLIFIED = """
import sys
from pathlib import Path
from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper

url, graph, directory = sys.argv[1:]
api = ComfyApiWrapper(url)
workflow = ComfyWorkflowWrapper(graph)
workflow.set_node_param("KSampler", "seed", 8)
for name, content in api.queue_and_wait_images(workflow, "SaveImage").items():
    Path(directory, name).write_bytes(content)
"""

UI_CLIENT = """
import { ComfyUIClient } from 'comfy-ui-client';
import { readFile } from 'node:fs/promises';

const [address, graph, directory] = process.argv.slice(2);
const client = new ComfyUIClient(address, 'someone');
await client.connect();
await client.saveImages(await client.getImages(JSON.parse(await readFile(graph))), directory);
await client.disconnect();
"""


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clients installed: py/bin and node_modules."""
    folder: Path = tmp_path_factory.mktemp("clients")
    uv = Path(sys.executable).with_name("uv")
    python = folder / "py" / "bin" / "python"
    run(uv, "venv", "--quiet", "--python", sys.executable, folder / "py", cwd=folder)
    run(uv, "pip", "install", "--quiet", "--python", python, *PYTHON_CLIENTS, cwd=folder)
    run("npm", "install", "--silent", *NODE_CLIENTS, cwd=folder)
    (folder / "graph.json").write_text(json.dumps(text_to_image_graph()))
    (folder / "api_simplified.py").write_text(API_SIMPLIFIED)
    (folder / "ui_client.mjs").write_text(UI_CLIENT)
    return folder


@pytest.fixture(params=PROFILES)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningSimulator]:
    with running_simulator(
        tmp_path / "server", prompt_seconds=0.5, profile=request.param
    ) as server:
        yield server


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_picture(folder: Path) -> None:
    (path,) = folder.iterdir()
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (96, 64))


def test_comfy_cli_runs_a_workflow_and_downloads_its_picture(
    server: RunningSimulator, clients: Path, tmp_path: Path
) -> None:
    def comfy(*arguments: object) -> str:
        command = (clients / "py" / "bin" / "comfy", "--skip-prompt", "--json", *arguments)
        # It keeps its settings and the jobs that it has sent in the home folder.
        return run(*command, cwd=clients, HOME=str(tmp_path))

    place = ("--host", server.address, "--port", server.port)
    answer = comfy("run", "--workflow", "graph.json", *place, "--wait", "--no-watch")
    result = json.loads(answer)["data"]
    assert result["status"] == "completed"

    results = tmp_path / "results"
    comfy("download", result["prompt_id"], "--where", "local", "--out-dir", results)
    assert_picture(results)


def test_comfy_api_simplified_changes_a_parameter_and_gets_the_picture(
    server: RunningSimulator, clients: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    python = clients / "py" / "bin" / "python"
    run(python, "api_simplified.py", server.url, "graph.json", results, cwd=clients)

    assert_picture(results)


def test_comfy_ui_client_for_node_saves_the_picture(
    server: RunningSimulator, clients: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    address = f"{server.address}:{server.port}"
    run("node", "ui_client.mjs", address, "graph.json", results, cwd=clients)

    assert_picture(results)

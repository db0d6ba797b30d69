"""Local mode's command: its options, and what is wrong with them."""

import json
import time
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from local.cli import app
from local.comfyui.simulator import running_simulator
from local.start_local_mode import running_local_mode


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--comfyui", "pulid"], "HOST:PORT"),
        (["--comfyui", "pulid=host:port"], "HOST:PORT"),
        (["--comfyui", "nofleet=127.0.0.1:8188"], "lip-sync, pulid, makeup"),
        (["--stage", "test"], "dev or prod"),
        (["--speed", "0"], "greater than 0"),
    ],
)
def test_a_wrong_option_is_explained(options: list[str], word: str):
    done = CliRunner().invoke(app, ["local", *options])
    assert done.exit_code == 2
    assert word in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.reference_graphs
def test_real_servers_take_the_place_of_simulated_ones_also_in_dev(tmp_path: Path):
    servers = tmp_path / "server"
    options = ("--stage", "dev", "--comfyui")
    with (
        running_simulator(servers) as server,
        running_local_mode(tmp_path, *options, f"pulid=127.0.0.1:{server.port}") as backend,
    ):
        assert backend.ready["stage"] == "dev"
        assert backend.ready["input_queue_url"].endswith("/dev-ml-service-input-queue")
        partial_name = str(uuid.uuid4())
        payload = {
            "S3Bucket": backend.ready["input_bucket"],
            "GroupId": 1,
            "PartialName": partial_name,
        }
        body = {"Subject": "ComfyUiFluxPromptMessage", "Payload": json.dumps(payload)}
        backend.send(json.dumps(body))
        end = time.monotonic() + 60
        replies = []
        while not replies and time.monotonic() < end:
            replies = list(backend.receive_replies(wait_seconds=1))
    assert [reply.data["PartialName"] for reply in replies] == [partial_name]
    assert replies[0].succeeded
    assert [file.name for file in (servers / "output").iterdir()] == [
        replies[0].data["MainKey"].removeprefix("comfyui-results/")
    ]

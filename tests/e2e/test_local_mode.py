"""Local mode's command as a user runs it: options, errors, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from local.comfyui.simulator import running_simulator
from local.start_local_mode import running_local_mode

COMMAND = [sys.executable, "-m", "local.cli", "local"]


def start(*options: str, ready_file: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--ready-file", str(ready_file), *options],
        # What a user of AWS may have set must not matter.
        env={**os.environ, "AWS_PROFILE": "nonexistent"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 60
    while not ready_file.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "not ready"
        time.sleep(0.05)
    return process


def list_descendants(pid: int) -> set[int]:
    """The process ids below a process, from /proc."""
    children = {
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    }
    return children.union(*(list_descendants(child) for child in children))


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def await_gone(pids: set[int], *, seconds: float) -> set[int]:
    end = time.monotonic() + seconds
    while (left := {pid for pid in pids if not is_gone(pid)}) and time.monotonic() < end:
        time.sleep(0.05)
    return left


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processes from /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_5_seconds_with_nothing_left(tmp_path: Path, number: int):
    ready_file = tmp_path / "ready.json"
    process = start(ready_file=ready_file)
    port = int(json.loads(ready_file.read_text())["endpoint"].rpartition(":")[2])
    family = list_descendants(process.pid) | {process.pid}
    assert len(family) > 1
    process.send_signal(number)
    assert process.wait(timeout=5) == 0
    assert await_gone(family, seconds=1) == set()
    assert not ready_file.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processes from /proc")
def test_it_ends_with_its_parent(tmp_path: Path):
    ready_file = tmp_path / "ready.json"
    command = [*COMMAND, "--port", "0", "--ready-file", str(ready_file)]
    script = f"import subprocess; subprocess.run({command!r})"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not ready_file.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    family = list_descendants(parent.pid)
    assert len(family) > 1
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert await_gone(family, seconds=6) == set()


def test_a_port_in_use_is_said_in_one_line(free_port: int):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        done = subprocess.run(
            [*COMMAND, "--port", str(free_port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert str(free_port) in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


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
    done = subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert word in " ".join(done.stderr.replace("│", " ").split())


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

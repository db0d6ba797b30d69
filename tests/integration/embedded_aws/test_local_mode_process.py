"""Local mode as a process: what it leaves ready, and that it leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local.aws.clients import AwsClients
from local.job_messages import make_message
from local.project import WORKFLOWS
from ml_service.adapters.workflow_files import load_catalog

from .conftest import wait_for

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

RUN = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from local.local_mode import LocalOptions, run_local

    options = LocalOptions(port=int(sys.argv[1]), ready_file=Path(sys.argv[2]), speed=60)
    sys.exit(run_local(options))
    """
)
START_SECONDS = 80
MEMBERS = {
    "endpoint",
    "region",
    "stage",
    "input_queue_url",
    "reply_queue_url",
    "input_bucket",
    "result_bucket",
    "job_table",
    "fleet_table",
    "state_machine_arn",
    "fleets",
    "jobs_api_url",
    "result_api_url",
}


class LocalMode:
    """A local mode that runs, with a folder of its own for all temporary files."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self.ready_file = folder / "ready.json"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.marks = folder / "cache" / "ml-service"
        self.environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(self.marks.parent),
        }
        self.command = [sys.executable, "-c", RUN, str(self.port), str(self.ready_file)]

    @contextmanager
    def running(self, command: list[str] | None = None) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            command or self.command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_for(lambda: self.ready_file.exists() or process.poll() is not None, START_SECONDS)
            assert process.poll() is None, process.communicate()[0]
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def cli(self) -> list[str]:
        """The command as a user gives it, faster than the clock."""
        command = [sys.executable, "-m", "local.cli", "local", "--speed", "60"]
        return [*command, "--port", str(self.port), "--ready-file", str(self.ready_file)]

    def read_mark(self) -> str:
        return (self.marks / f"local-{self.port}.json").read_text()

    def processes(self) -> set[int]:
        """Find every process that was given this run's folder, in arguments or environment."""
        return {
            int(folder.name)
            for folder in Path("/proc").glob("[0-9]*")
            if int(folder.name) != os.getpid() and self._is_ours(folder)
        }

    def _is_ours(self, folder: Path) -> bool:
        try:
            environment = (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False  # It has ended, or is not ours to look into.
        return state != "Z" and str(self.temporary).encode() in environment

    def is_listening(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def local_mode(tmp_path: Path) -> LocalMode:
    return LocalMode(tmp_path)


def test_local_mode_is_ready_then_ends_on_sigterm_within_five_seconds(
    local_mode: LocalMode,
) -> None:
    with local_mode.running() as process:
        ready = json.loads(local_mode.ready_file.read_text())
        assert ready.keys() == MEMBERS
        assert ready["endpoint"] == f"http://127.0.0.1:{local_mode.port}"
        _check_ready(ready)
        assert len(local_mode.processes()) > 2

        # A second one on the same port says so in one line, and does not harm the first.
        second = subprocess.run(
            local_mode.command,
            env=local_mode.environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert second.returncode == 1
        assert second.stdout == ""
        assert f"port {local_mode.port} is in use" in second.stderr
        assert second.stderr.count("\n") == 1
        assert local_mode.ready_file.exists()
        assert local_mode.marks.exists()
        assert [mark.stem for mark in local_mode.marks.iterdir()] == [f"local-{local_mode.port}"]

        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        output, _ = process.communicate(timeout=5)
        assert time.monotonic() - began < 5
        assert process.returncode == 0
        assert ready["endpoint"] in output
        assert "was killed" not in output
    wait_for(lambda: not local_mode.processes(), 2)
    assert not local_mode.ready_file.exists()
    assert list(local_mode.temporary.iterdir()) == []
    assert list(local_mode.marks.iterdir()) == []
    assert not local_mode.is_listening()


def test_a_kill_takes_all_processes_and_the_next_local_mode_says_what_was_lost(
    local_mode: LocalMode,
) -> None:
    stuck = [*local_mode.cli, "--fault", "pulid:hang"]
    with local_mode.running(stuck) as process:
        ready = json.loads(local_mode.ready_file.read_text())
        _send_a_job(ready)
        wait_for(lambda: '"open_jobs":1,"waiting_messages":0' in local_mode.read_mark())
        assert len(local_mode.processes()) > 4  # moto and some functions
        process.kill()
        process.wait()
        wait_for(lambda: not local_mode.processes(), 5)
    (left,) = local_mode.temporary.iterdir()
    local_mode.ready_file.unlink()

    with local_mode.running(local_mode.cli) as process:
        ready = json.loads(local_mode.ready_file.read_text())
        jobs = AwsClients(ready["endpoint"], ready["region"]).table(ready["job_table"]).scan()
        assert jobs["Items"] == []
        assert not left.exists()
        assert '"open_jobs":0' in local_mode.read_mark()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=START_SECONDS)
        assert process.returncode == 0
    assert f"The last local mode on port {local_mode.port}" in output
    assert "was killed" in output
    assert "lost are 1 open jobs, 0 messages" in output
    assert list(local_mode.marks.iterdir()) == []


@pytest.mark.long
def test_local_mode_ends_with_the_process_that_started_it(local_mode: LocalMode) -> None:
    starter = [
        sys.executable,
        "-c",
        f"import subprocess; subprocess.run({local_mode.command!r})",
    ]
    with local_mode.running(starter) as process:
        process.kill()
        process.wait()
        wait_for(lambda: not local_mode.processes(), 5)
    assert not local_mode.ready_file.exists()
    assert list(local_mode.temporary.iterdir()) == []


def _send_a_job(ready: dict[str, Any]) -> None:
    workflow = load_catalog(WORKFLOWS).workflow("flux-prompt")
    body = make_message(
        workflow,
        {"promptText": "a red kite"},
        job_id=str(uuid.uuid4()),
        partial_name=str(uuid.uuid4()),
        bucket=ready["input_bucket"],
        stage=ready["stage"],
        at=datetime.now(UTC),
    )
    sqs = AwsClients(ready["endpoint"], ready["region"]).sqs
    sqs.send_message(QueueUrl=ready["input_queue_url"], MessageBody=body)


def _check_ready(ready: dict[str, Any]) -> None:
    """Use what the ready file names, as any SDK would."""
    clients = AwsClients(ready["endpoint"], ready["region"])
    for url in (ready["input_queue_url"], ready["reply_queue_url"]):
        name = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        assert name["Attributes"]["QueueArn"].endswith(url.rpartition("/")[2])
    buckets = {bucket["Name"] for bucket in clients.s3.list_buckets()["Buckets"]}
    assert {ready["input_bucket"], ready["result_bucket"]} <= buckets
    tables = set(clients.client("dynamodb").list_tables()["TableNames"])
    assert {ready["job_table"], ready["fleet_table"]} <= tables
    assert clients.stepfunctions.describe_state_machine(stateMachineArn=ready["state_machine_arn"])
    assert ready["fleets"].keys() == {"lip-sync", "pulid", "makeup"}
    for fleet in ready["fleets"].values():
        groups = clients.autoscaling.describe_auto_scaling_groups(
            AutoScalingGroupNames=[fleet["group_name"]]
        )["AutoScalingGroups"]
        (instance,) = groups[0]["Instances"]
        described = clients.ec2.describe_instances(InstanceIds=[instance["InstanceId"]])
        address = described["Reservations"][0]["Instances"][0]["PrivateIpAddress"]
        with urllib.request.urlopen(f"http://{address}:8188/system_stats", timeout=5) as answer:
            assert answer.status == 200


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

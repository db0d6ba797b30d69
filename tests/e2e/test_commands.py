"""The commands that work against a running stage, as a user runs them."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from local.backend import Backend
from local.cli import app, main
from local.sample_media import make_image


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "local.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def here(backend: Backend) -> list[str]:
    return ["--endpoint", backend.ready["endpoint"]]


def test_a_job_is_submitted_awaited_saved_listed_and_shown(here: list[str], tmp_path: Path):
    photo = tmp_path / "photo.png"
    photo.write_bytes(make_image(color=(200, 30, 30)))
    inputs = ["--input", f"image=@{photo}", "--input", "promptText=a red kite"]
    done = run("submit", "flux-photo-prompt", *inputs, "--save-to", str(tmp_path / "out"), *here)
    assert done.returncode == 0, done.stderr
    job_id, state = done.stdout.splitlines()[:2]
    assert state == "SUCCEEDED"
    (saved,) = (tmp_path / "out").iterdir()
    assert b"a red kite" in saved.read_bytes()

    listed = run("jobs", "list", "--state", "SUCCEEDED", *here)
    assert job_id in listed.stdout

    shown = json.loads(run("jobs", "show", job_id, *here).stdout)
    assert (shown["job_id"], shown["workflow"]) == (job_id, "flux-photo-prompt")
    assert shown["reply"]["source"] == "ComfyUiResult"


def test_the_jobs_that_ran_become_a_trace(here: list[str], backend: Backend, tmp_path: Path):
    done = run("submit", "flux-prompt", "--input", "promptText=a kite", "--wait", *here)
    assert done.returncode == 0, done.stderr
    trace = tmp_path / "trace.csv"
    exported = run("trace", "export", "pulid", str(trace), *here)
    assert exported.returncode == 0, exported.stderr
    simulated = run("simulate", str(trace))
    assert simulated.returncode == 0, simulated.stderr
    assert "streak" in simulated.stdout


def test_the_scaler_says_what_it_did_and_what_it_would_do(here: list[str]):
    history = run("scaler", "history", "pulid", *here)
    assert history.returncode == 0, history.stderr
    assert "DONE" in history.stdout
    explained = run("scaler", "explain", "pulid", *here)
    assert explained.returncode == 0, explained.stderr
    # Within a minute that was decided already there is nothing to explain.
    assert "1 to 3" in explained.stdout or "has been made" in explained.stdout
    unknown = run("scaler", "explain", "pulit", *here)
    assert unknown.returncode == 1
    assert "no fleet 'pulit', only lip-sync, pulid, makeup" in unknown.stderr


def test_a_refused_job_is_told_at_once(here: list[str]):
    done = run("submit", "flux-photo-prompt", "--wait", *here)
    assert done.returncode == 1
    assert "FAILED INVALID_MESSAGE: InputS3Key" in done.stdout


def test_a_load_test_tells_whether_its_expectations_are_met(here: list[str], tmp_path: Path):
    expect = tmp_path / "expect.json"
    expect.write_text('{"max_seconds": 60}')
    size = ["--jobs", "12", "--concurrency", "6", "--watch-seconds", "1"]
    done = run("load", *size, "--expect", str(expect), *here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12/12" in done.stdout
    assert "Every expectation is met." in done.stdout

    expect.write_text('{"max_seconds": 0.001}')
    done = run("load", "--jobs", "1", "--workflow", "flux-prompt", "--expect", str(expect), *here)
    assert done.returncode == 1
    assert "expected at most 0.001 s" in done.stdout


def test_a_job_is_followed_through_every_hop(here: list[str]):
    """Other tests may have left the stage itself with dead letters or alarms."""
    done = run("smoke", *here)
    assert done.returncode == ("FAILED" in done.stdout), done.stderr
    for hop in ("dispatch_jobs", "admit_jobs", "run_job", "ComfyUI", "results", "finish_job"):
        assert re.search(rf"{hop}.* ok ", done.stdout)
    assert "taken from it" in done.stdout


def test_a_message_that_nobody_can_be_told_about_is_listed_shown_redriven_and_dropped(
    backend: Backend, here: list[str]
):
    backend.send('{"Subject": "ComfyUiFluxPromptMessage", "Payload": "secret words"}')
    queue = ["--queue", "input"]

    def list_ids() -> list[str]:
        listed = run("dlq", "list", *queue, *here)
        assert listed.returncode == 0, listed.stderr
        return re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", listed.stdout)

    def await_ids() -> list[str]:
        end = time.monotonic() + 60
        while not (ids := list_ids()):
            assert time.monotonic() < end, "no message became a dead letter"
        return ids

    (message_id,) = await_ids()
    smoke = run("smoke", *here)
    assert smoke.returncode == 1
    assert "1 in prod-ml-service-input-queue-deadletter" in smoke.stdout
    shown = run("dlq", "show", message_id, *here)
    assert "secret" not in shown.stdout
    described = json.loads(shown.stdout)
    assert (described["queue"], described["redrive"]) == ("input", "RESENT")
    assert described["refusal"]["code"] == "INVALID_JSON"
    assert "secret words" in run("dlq", "show", message_id, "--body", *here).stdout

    asked = run("dlq", "redrive", message_id, *queue, *here)
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    redriven = run("dlq", "redrive", message_id, "--yes", *queue, *here)
    assert (redriven.returncode, redriven.stdout) == (0, f"{message_id} RESENT\n")

    (again,) = await_ids()
    assert again != message_id
    dropped = run("dlq", "drop", "--all", "--yes", *queue, *here)
    assert (dropped.returncode, dropped.stdout) == (0, f"{again} UNANSWERED\n")
    assert list_ids() == []


@pytest.mark.parametrize("arguments", [["redrive"], ["drop", "some-id", "--all"]])
def test_messages_are_named_or_all_are_meant(arguments: list[str]):
    done = CliRunner().invoke(app, ["dlq", *arguments, "--yes"])
    assert done.exit_code == 2
    assert "--all" in done.stderr


def test_a_message_that_is_not_there_is_told(here: list[str]):
    done = run("dlq", "redrive", "no-such-id", "--queue", "input", "--yes", *here)
    assert done.returncode == 1
    assert "no-such-id" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["submit", "no-such-workflow"], "no workflow no-such-workflow"),
        (["submit", "flux-prompt", "--input", "text=x"], "no input text"),
        (["load", "--workflow", "no-such-workflow"], "no workflow no-such-workflow"),
        (["jobs", "list", "--endpoint", "http://127.0.0.1:9"], "is local mode running?"),
        (["jobs", "list", "--ready-file", "no/such.json"], "no/such.json"),
        (["dlq", "list", "--endpoint", "http://127.0.0.1:9"], "is local mode running?"),
    ],
)
def test_a_wrong_command_is_explained_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    word: str,
):
    monkeypatch.setattr(sys, "argv", ["ml-service", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert word in said
    assert len(said.strip().splitlines()) == 1

"""What an instance's image holds: scripts that do what they say, and units that start them."""

import configparser
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

IMAGE = Path(__file__).parents[2] / "fleets" / "image"
SCRIPTS = sorted([IMAGE / "install.sh", *(IMAGE / "scripts").glob("*.sh")])
UNITS = sorted((IMAGE / "units").iterdir())

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    found = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 0)


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Where the pretended programs write how they were called."""
    return tmp_path / "calls"


@pytest.fixture
def run_script(tmp_path: Path, calls: Path) -> RunScript:
    """Runs a script of the image with programs that only pretend: shell text by name."""

    def run(
        name: str, *, programs: Mapping[str, str], **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        folder = tmp_path / "bin"
        folder.mkdir()
        for program, text in programs.items():
            (folder / program).write_text(f'#!/bin/bash\necho "{program} $*" >>"{calls}"\n{text}\n')
            (folder / program).chmod(0o755)
        return subprocess.run(
            ["/bin/bash", IMAGE / "scripts" / name],
            env={"PATH": f"{folder}:{os.environ['PATH']}", "PAUSE_SECONDS": "0", **variables},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    return run


def test_models_come_before_the_file_that_tells_of_them(run_script: RunScript, calls: Path) -> None:
    done = run_script(
        "sync_models.sh", programs={"aws": ""}, MODEL_BUCKET="some-models", FLEET="pulid"
    )
    assert done.returncode == 0
    first, second = calls.read_text().splitlines()
    assert first.startswith("aws s3 sync s3://some-models/pulid/models /var/lib/comfyui/models")
    assert second.startswith("aws s3 cp s3://some-models/pulid/extra_model_paths.yaml")


def test_without_a_bucket_no_models_are_fetched(run_script: RunScript, calls: Path) -> None:
    done = run_script("sync_models.sh", programs={"aws": ""}, MODEL_BUCKET="", FLEET="pulid")
    assert done.returncode == 0
    assert not calls.exists()


def test_comfyui_is_not_started_without_its_models(run_script: RunScript, calls: Path) -> None:
    done = run_script(
        "sync_models.sh", programs={"aws": "exit 1"}, MODEL_BUCKET="some-models", FLEET="pulid"
    )
    assert done.returncode == 1
    assert len(calls.read_text().splitlines()) == 1


@pytest.fixture
def comfyui_root(tmp_path: Path) -> Path:
    """A folder of one version, whose Python prints what it is asked to run."""
    python = tmp_path / "comfyui" / "v0.12.1" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\necho "$PWD: $*"\n')
    python.chmod(0o755)
    return tmp_path / "comfyui"


def test_comfyui_starts_in_the_version_that_is_asked_for(
    run_script: RunScript, comfyui_root: Path, tmp_path: Path
) -> None:
    """It takes inputs as large as a job may have: 500 MB."""
    models = tmp_path / "models"
    models.mkdir()
    (models / "extra_model_paths.yaml").touch()
    done = run_script(
        "start_comfyui.sh",
        programs={},
        COMFYUI_ROOT=str(comfyui_root),
        COMFYUI_VERSION="v0.12.1",
        MODEL_ROOT=str(models),
    )
    assert done.returncode == 0
    assert done.stdout.startswith(f"{comfyui_root}/v0.12.1: main.py ")
    assert "--port 8188 --max-upload-size 500" in done.stdout
    assert f"--extra-model-paths-config {models}/extra_model_paths.yaml" in done.stdout


def test_a_version_that_the_image_lacks_is_told(run_script: RunScript, comfyui_root: Path) -> None:
    done = run_script(
        "start_comfyui.sh",
        programs={},
        COMFYUI_ROOT=str(comfyui_root),
        COMFYUI_VERSION="v0.38.0",
    )
    assert done.returncode == 1
    assert "no ComfyUI v0.38.0, only: v0.12.1" in done.stderr


# A ComfyUI that does not answer at first, and the instance's own metadata.
_CURL = """
case "$*" in
  *:8188*) test -e "${0}.asked" || { touch "${0}.asked"; exit 7; } ;;
  *api/token*) echo a-token ;;
  *"a-token"*instance-id*) echo i-0abc ;;
esac
"""


def test_auto_scaling_goes_on_once_comfyui_answers(run_script: RunScript, calls: Path) -> None:
    done = run_script(
        "announce_instance.sh", programs={"curl": _CURL, "aws": ""}, GROUP_NAME="some-group"
    )
    assert done.returncode == 0, done.stderr
    *asked, completed = calls.read_text().splitlines()
    assert sum(":8188/queue" in line for line in asked) == 2
    assert completed == (
        "aws autoscaling complete-lifecycle-action --instance-id i-0abc "
        "--auto-scaling-group-name some-group --lifecycle-hook-name comfyui-answers "
        "--lifecycle-action-result CONTINUE"
    )


def test_an_instance_that_only_restarted_is_content(run_script: RunScript, calls: Path) -> None:
    """Nobody waits for it; before it is sure of that it asks a few times."""
    nobody = 'echo "ValidationError: No active Lifecycle Action found" >&2; exit 254'
    done = run_script(
        "announce_instance.sh",
        programs={"curl": _CURL, "aws": nobody},
        GROUP_NAME="some-group",
        TRIES="3",
    )
    assert done.returncode == 0
    assert sum(line.startswith("aws") for line in calls.read_text().splitlines()) == 3


def test_a_refused_announcement_fails_so_that_it_is_tried_again(run_script: RunScript) -> None:
    done = run_script(
        "announce_instance.sh",
        programs={"curl": _CURL, "aws": "echo AccessDenied >&2; exit 254"},
        GROUP_NAME="some-group",
    )
    assert (done.returncode, done.stderr.strip()) == (1, "AccessDenied")


@pytest.mark.skipif(shutil.which("jq") is None, reason="the script needs jq")
@pytest.mark.parametrize(
    ("devices", "reported"),
    [
        pytest.param(
            [{"vram_total": 24_000, "vram_free": 6_000}],
            "vram_used_percent:75.0|g|#fleet:pulid",
            id="gpu",
        ),
        pytest.param(
            [
                {"vram_total": 1_000, "vram_free": 900},
                {"vram_total": 1_000, "vram_free": 100},
            ],
            "vram_used_percent:90.0|g|#fleet:pulid",
            id="fullest-gpu",
        ),
        pytest.param([{"vram_total": 0, "vram_free": 0}], None, id="no-gpu"),
    ],
)
def test_the_memory_of_the_gpu_is_reported(
    run_script: RunScript, devices: list[Mapping[str, int]], reported: str | None
) -> None:
    stats = json.dumps({"devices": devices})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(0.2)
        done = run_script(
            "report_vram.sh",
            programs={"curl": f"echo '{stats}'"},
            FLEET="pulid",
            STATSD_PORT=str(agent.getsockname()[1]),
        )
        assert done.returncode == 0, done.stderr
        if reported is None:
            with pytest.raises(TimeoutError):
                agent.recv(200)
        else:
            assert agent.recv(200).decode() == reported


def test_the_agents_metrics_carry_the_fleet(run_script: RunScript, tmp_path: Path) -> None:
    """CPU, memory and disk, each with the fleet's name; the statsd port is report_vram.sh's."""
    filled = tmp_path / "filled.json"
    done = run_script(
        "start_cloudwatch_agent.sh",
        programs={"agent-ctl": ""},
        AGENT="agent-ctl",
        FLEET="lip-sync",
        CONFIGURATION=str(IMAGE / "cloudwatch-agent.json"),
        FILLED=str(filled),
    )
    assert done.returncode == 0, done.stderr
    collected = json.loads(filled.read_text())["metrics"]["metrics_collected"]
    assert collected.keys() == {"cpu", "mem", "disk", "statsd"}
    for source in ("cpu", "mem", "disk"):
        assert collected[source]["append_dimensions"] == {"fleet": "lip-sync"}
    port = collected["statsd"]["service_address"].rpartition(":")[2]
    assert f"STATSD_PORT:-{port}" in (IMAGE / "scripts" / "report_vram.sh").read_text()


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_each_unit_starts_a_script_or_unit_that_is_there(unit: Path) -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit.read_text())
    text = unit.read_text()
    scripts = re.findall(r"^Exec\w+=/opt/ml-service/scripts/(\S+)$", text, re.MULTILINE)
    wanted = [
        name
        for key in ("Wants", "After", "PartOf")
        for name in parser["Unit"].get(key, "").split()
        if name != "network-online.target"
    ]
    assert [name for name in scripts if not (IMAGE / "scripts" / name).exists()] == []
    assert [name for name in wanted if not (IMAGE / "units" / name).exists()] == []
    if unit.suffix == ".service":
        assert scripts
        assert parser["Service"]["EnvironmentFile"] == "/etc/ml-service/instance.env"


def test_comfyui_is_started_again_whatever_ends_it() -> None:
    text = (IMAGE / "units" / "comfyui.service").read_text()
    assert "Restart=always" in text
    assert "StartLimitIntervalSec=0" in text


@pytest.mark.parametrize("version", ["", "master", "v1; reboot"])
def test_an_image_is_made_of_a_released_version_only(version: str) -> None:
    done = subprocess.run(
        ["/bin/bash", IMAGE / "install.sh", version], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "usage" in done.stderr

"""warm_instance with the real client on a simulated server, with graphs as they lie in a folder."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from local.comfyui.simulator import RunningSimulator, running_simulator
from ml_service.adapters.clock import SystemClock
from ml_service.adapters.comfyui import HttpComfyUIConnector
from ml_service.adapters.workflow_files import load_warm_up
from ml_service.services.warm_instance import WarmInstance, WarmUpReport, WarmUpStatus
from tests.fakes import InMemoryFleetStore
from tests.makers import make_instance


def make_text(text: str) -> str:
    """A graph that puts out a text."""
    return json.dumps(
        {
            "1": {"class_type": "PrimitiveString", "inputs": {"value": text}},
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        }
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path, prompt_seconds=0.1) as server:
        yield server


def warm_up(server: RunningSimulator, folder: Path) -> tuple[WarmUpReport, bool]:
    cold = make_instance("a", warmed_at=None, address=server.address)
    store = InMemoryFleetStore("pulid", cold)
    service = WarmInstance(
        "prod",
        partial(load_warm_up, folder),
        store,
        HttpComfyUIConnector(port=server.port),
        SystemClock(),
    )
    return service.warm_up("pulid", cold.key), store.list_instances("pulid")[0].is_ready


@pytest.mark.parametrize(
    ("graphs", "prompts"),
    [
        ({}, 1),
        ({"is-cached-pulid": make_text("true"), "cache-components": make_text("loaded")}, 1),
        ({"is-cached-pulid": make_text("false"), "cache-components": make_text("loaded")}, 2),
    ],
    ids=["no graphs", "loaded", "not loaded"],
)
def test_the_check_decides_what_runs(
    server: RunningSimulator, tmp_path: Path, graphs: dict[str, str], prompts: int
):
    (tmp_path / "pulid").mkdir()
    for name, text in graphs.items():
        (tmp_path / "pulid" / f"{name}.json").write_text(text)
    report, is_ready = warm_up(server, tmp_path)
    assert (report.status, is_ready) == (WarmUpStatus.WARMED, True)
    assert [run.end for run in server.runs] == ["success"] * prompts


def test_a_broken_gpu_keeps_an_instance_out(server: RunningSimulator, tmp_path: Path):
    server.add_fault("black-hole")
    report, is_ready = warm_up(server, tmp_path)
    assert (report.status, is_ready) == (WarmUpStatus.UNFIT, False)
    assert "AcceleratorError" in report.fault

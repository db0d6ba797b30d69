import copy
import random
import time
from pathlib import Path
from statistics import median

import pytest
from typer.testing import CliRunner

from local.cli import app
from local.comfyui.prompt_durations import (
    DurationError,
    FixedDuration,
    PromptDurations,
    parse_duration,
    parse_workflow_duration,
    read_graphs,
)
from local.comfyui.simulator import running_simulator
from tests.unit.comfyui_simulator.simulator_client import SimulatorClient, picture_graph

WORKFLOWS = Path(__file__).parents[3] / "workflows"


@pytest.mark.parametrize(
    ("text", "lowest", "middle", "highest"),
    [("2", 2, 2, 2), ("uniform:1:3", 1, 2, 3), ("lognormal:20:0.5", 0, 20, 500)],
)
def test_a_duration_is_drawn_as_described(
    text: str, lowest: float, middle: float, highest: float
) -> None:
    dice = random.Random(1)
    drawn = [parse_duration(text).draw(dice) for _ in range(1000)]

    assert lowest <= min(drawn) <= max(drawn) <= highest
    assert median(drawn) == pytest.approx(middle, rel=0.1)


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "nan", "inf", "uniform:1", "uniform:3:1", "lognormal:0:1", "normal:1:2", "1:2"],
)
def test_a_duration_without_meaning_is_refused(text: str) -> None:
    with pytest.raises(DurationError, match="is no duration: SECONDS, uniform:LEAST:MOST"):
        parse_duration(text)


def test_a_duration_names_a_workflow_that_there_is() -> None:
    graphs = read_graphs(WORKFLOWS)

    assert parse_workflow_duration("flux-prompt=2", graphs) == ("flux-prompt", FixedDuration(2))
    with pytest.raises(DurationError, match="no workflow 'nope', only flux-photo-prompt, "):
        parse_workflow_duration("nope=2", graphs)
    with pytest.raises(DurationError, match="is not WORKFLOW=DURATION"):
        parse_workflow_duration("2", graphs)


def test_each_workflow_of_a_fleet_takes_its_own_time() -> None:
    for fleet in ("lip-sync", "pulid", "makeup"):
        graphs = read_graphs(WORKFLOWS / fleet)
        assert len(graphs) > 3
        for name, graph in graphs.items():
            durations = PromptDurations(FixedDuration(99), {name: FixedDuration(1)}, graphs)
            # A server cannot tell graphs apart that are equal.
            timed = [other for other in graphs if durations.draw(graphs[other]) == 1]
            assert timed == [other for other in graphs if graphs[other] == graph]


def test_a_graph_with_placeholders_is_recognized_once_it_is_filled(tmp_path: Path) -> None:
    text = '\ufeff{"1": {"class_type": "RandomNoise", "inputs": {"noise_seed": ___seed___}}}'
    (tmp_path / "mine.json").write_text(text, encoding="utf-8")
    (tmp_path / "mine.yaml").touch()
    graphs = read_graphs(tmp_path)
    durations = PromptDurations(FixedDuration(99), {"mine": FixedDuration(3)}, graphs)

    assert durations.draw({"1": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}}}) == 3


@pytest.mark.reference_graphs
def test_a_filled_graph_is_still_recognized() -> None:
    graphs = read_graphs(WORKFLOWS)
    durations = PromptDurations(FixedDuration(99), {"flux-prompt": FixedDuration(3)}, graphs)
    filled = copy.deepcopy(dict(graphs["flux-prompt"]))
    filled["3"]["inputs"]["value"] = "a cat"
    filled["4"]["inputs"]["value"] = 7
    filled["2"]["inputs"]["filename_prefix"] = "job-1"

    assert durations.draw(filled) == 3
    # A node that no output needs may lack its inputs: it is not even looked at.
    del filled["3"]["inputs"]
    assert durations.draw(filled) == 3
    assert durations.draw(picture_graph()) == 99


def test_a_seed_makes_durations_repeatable() -> None:
    def draw(seed: int) -> list[float]:
        durations = PromptDurations(parse_duration("lognormal:5:1"), seed=seed)
        return [durations.draw({}) for _ in range(5)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_prompt_runs_for_the_seconds_drawn(tmp_path: Path) -> None:
    graphs = {"slow": picture_graph(color=1)}
    durations = PromptDurations(FixedDuration(0), {"slow": FixedDuration(0.5)}, graphs)
    with running_simulator(tmp_path, durations=durations) as server:
        client = SimulatorClient(server.url)
        started = time.monotonic()
        client.run(picture_graph(color=2))

        assert 0.5 <= time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["comfyui", "--duration", "nope=1", "--workflows", str(WORKFLOWS)], "no workflow 'nope'"),
        (["local", "--duration", "flux-prompt=x"], "is no duration"),
        (["comfyui", "--profile", "0.1"], "must be 0.12 or 0.38"),
        (["local", "--profile", "1"], "must be 0.12 or 0.38"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments: list[str], reason: str) -> None:
    done = CliRunner(env={"COLUMNS": "500"}).invoke(app, arguments)

    assert done.exit_code == 2
    assert reason in done.stderr

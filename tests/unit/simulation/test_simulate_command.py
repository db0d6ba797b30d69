from pathlib import Path

import pytest
from typer.testing import CliRunner

from local.cli import app


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "trace.csv"
    made = run("trace", "generate", "burst", str(path), "--days", "1.1", "--seed", "3")
    assert made.exit_code == 0, made.output
    return path


def test_a_comparison_has_every_policy_the_bounds_and_where_it_does_not_pay(
    trace: Path, tmp_path: Path
):
    picture = tmp_path / "trace.png"
    done = run("simulate", str(trace), "--compare", "--plot", str(picture), "--price", "2")
    assert done.exit_code == 0, done.output
    for name in (
        "streak",
        "need",
        "elastic",
        "streak, moving",
        "need, not moving",
        "always max",
        "clairvoyant",
        "does not pay",
    ):
        assert name in done.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_one_policy_is_simulated_alone(trace: Path):
    done = run("simulate", str(trace), "--policy", "need", "--startup", "60", "--max", "5")
    assert done.exit_code == 0, done.output
    assert "need" in done.output
    assert "1 to 5 instances, 60 s to start" in done.output
    assert "streak" not in done.output


def test_a_policy_of_ones_own_is_given_as_a_stage_has_it(trace: Path):
    own = '{"preset": "need", "moves_waiting": false, "out_cooldown": 60}'
    done = run("simulate", str(trace), "--policy", own)
    assert done.exit_code == 0, done.output
    assert "yours" in done.output


@pytest.mark.parametrize(
    "options",
    [
        ["--policy", "best"],
        ["--policy", '{"out_cooldwn": 5}'],
        ["--policy", '{"threshold": 4}'],
        ["--policy", "{5"],
        ["--min", "4", "--max", "3"],
        ["--max", "0"],
    ],
)
def test_an_option_that_cannot_be_is_refused(trace: Path, options: list[str]):
    done = run("simulate", str(trace), *options)
    assert done.exit_code == 2
    assert options[0] in done.output

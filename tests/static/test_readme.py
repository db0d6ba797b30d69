"""README's diagram speaks of what exists, in the same words."""

import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import pytest

_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SNAKE_CASE = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")


@pytest.fixture(scope="module")
def diagram(root: Path) -> str:
    """The fenced block in which the first function stands."""
    blocks = _FENCED.findall((root / "README.md").read_text())
    return next((block for block in blocks if "dispatch_jobs" in block), "")


@pytest.fixture(scope="module")
def function_names(functions: Mapping[str, Any]) -> Set[str]:
    return set(functions)


def test_diagram_shows_every_function(diagram: str, function_names: Set[str]) -> None:
    """A function that the diagram leaves out is one that a reader does not know of."""
    assert function_names - set(_SNAKE_CASE.findall(diagram)) == set()


def test_diagram_shows_no_function_that_does_not_exist(
    root: Path, diagram: str, function_names: Set[str]
) -> None:
    """Every word in snake case is a function or a state machine."""
    machines = {p.name.partition(".")[0] for p in (root / "statemachines").glob("*.asl.json")}

    assert set(_SNAKE_CASE.findall(diagram)) - function_names - machines == set()


def test_every_task_of_the_state_machine_stands_in_the_diagram(
    diagram: str, definition: Mapping[str, Any]
) -> None:
    """`Choose Instance` in the graph is choose_instance in the diagram."""
    tasks = {
        name.lower().replace(" ", "_")
        for name, state in definition["States"].items()
        if state["Type"] == "Task"
    }

    assert tasks - set(_SNAKE_CASE.findall(diagram)) == set()

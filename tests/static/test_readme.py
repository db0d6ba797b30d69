"""README's diagram speaks of what exists, in the same words."""

import json
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from local.cli import app
from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.errors import JOB_ERRORS, RefusalCode
from ml_service.domain.graph_faults import find_faults
from ml_service.domain.graphs import read_graph
from ml_service.domain.inputs import resolve_inputs
from ml_service.domain.job_requests import read_job_request
from ml_service.domain.manifests import Workflow
from ml_service.domain.messages import parse_message

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


def _read_table(root: Path, head: str) -> list[list[str]]:
    """The cells of the table whose first column is headed so, backticks left out."""
    lines = (root / "README.md").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def test_the_parameters_table_is_the_templates(root: Path, template: Mapping[str, Any]) -> None:
    """Every parameter with its default, in the template's order."""
    parameters = [
        [name, str(parameter.get("Default", ""))]
        for name, parameter in template["Parameters"].items()
    ]

    assert [row[:2] for row in _read_table(root, "parameter of `template.yaml`")] == parameters


def test_the_options_table_is_the_commands(root: Path) -> None:
    """Every option of `ml-service local` with its default."""
    command = typer.main.get_command(app).commands["local"]
    options = {
        option.opts[0]: "" if option.default is None else option.default
        for option in command.params
        if option.name != "help"
    }
    rows = {row[0]: row[1] for row in _read_table(root, "option of `ml-service local`")}

    assert rows.keys() == options.keys()
    for name, default in options.items():
        assert rows[name] == (f"{default:g}" if isinstance(default, float) else str(default))


def test_the_workflows_table_is_the_catalog(root: Path) -> None:
    """Every shipped workflow with its subject and fleet."""
    shipped = {
        (subject, w.workflow, w.fleet)
        for w in load_catalog(root / "workflows")
        for subject in w.subjects
    }

    assert {tuple(row) for row in _read_table(root, "subject")} == shipped


def test_every_code_is_named(root: Path) -> None:
    """Who searches README for a code finds it."""
    text = (root / "README.md").read_text()
    codes = [error.code for error in JOB_ERRORS.values()] + list(RefusalCode)

    assert [code for code in codes if code not in text] == []


def test_the_message_to_send_by_hand_is_accepted(root: Path) -> None:
    """Who copies it gets a job, not an error."""
    text = (root / "README.md").read_text()
    body = text.partition("--message-body '")[2].partition("'")[0]
    message = parse_message(body, sqs_message_id="")
    workflow = load_catalog(root / "workflows").classify(message.subject, message.payload)
    inputs = resolve_inputs(
        workflow,
        message.payload,
        partial_name=message.partial_name,
        input_buckets=frozenset({"local-ml-service-input"}),
    )

    assert inputs.values == {"promptText": "a red kite"}


def test_the_manifest_to_write_is_valid_and_fits_a_graph_such_as_it_speaks_of(root: Path) -> None:
    """Who follows the guide gets a workflow, not an error."""
    text = (root / "README.md").read_text()
    manifest = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    workflow = Workflow.model_validate(manifest)
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "positive": ["6", 0]}},
        "6": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": "x"},
            "_meta": {"title": "Positive prompt"},
        },
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI"}},
        "12": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    }

    assert [str(fault) for fault in find_faults(workflow, read_graph(json.dumps(graph)))] == []


def test_the_native_messages_are_accepted(root: Path) -> None:
    text = (root / "README.md").read_text()
    catalog = load_catalog(root / "workflows")
    section = text.partition("### Native messages")[2]
    bodies = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    requests = [
        read_job_request(
            body,
            sqs_message_id="sqs",
            catalog=catalog,
            input_buckets=frozenset({"local-ml-service-input"}),
        )
        for body in bodies
    ]

    assert [r.workflow.workflow for r in requests] == ["still-image-text", "text-to-image"]


def test_every_member_of_a_manifest_that_the_readme_names_exists(root: Path) -> None:
    rows = _read_table(root, "in a manifest")
    named = {name.strip("` ") for row in rows for name in row[0].split(",")}

    assert named <= Workflow.model_fields.keys()

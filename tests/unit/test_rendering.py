import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_service.domain.errors import WorkflowError
from ml_service.domain.rendering import render_prompt
from ml_service.domain.workflows import Workflow
from tests.makers import CATALOG

WORKFLOW = Workflow.model_validate(
    {
        "workflow": "sample",
        "fleet": "pulid",
        "subject": "S",
        "inputs": {"promptText": {"type": "text", "member": "PromptText", "default": "x"}},
        "bindings": {
            "promptText": [{"node": "1", "input": "text"}],
            "seed": [{"node": "1", "input": "seed"}],
            "outputPrefix": [
                {"node": "2", "input": "filename_prefix"},
                {"node": "3", "input": "filename_prefix", "suffix": "_mask"},
            ],
        },
        "outputs": {"kind": "image"},
        "expected_seconds": 1,
    }
)
GRAPH = {
    "1": {"class_type": "Text", "inputs": {"text": "", "seed": 0, "other": ["2", 0]}},
    "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a"}},
    "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "b"}},
}


@given(text=st.text(), seed=st.integers(0, 2**31 - 2), prefix=st.text(min_size=1))
def test_rendering_changes_bound_inputs_only(text: str, seed: int, prefix: str):
    before = copy.deepcopy(GRAPH)
    rendered = render_prompt(
        WORKFLOW, GRAPH, {"promptText": text, "seed": seed, "outputPrefix": prefix}
    )
    expected = copy.deepcopy(GRAPH)
    expected["1"]["inputs"] |= {"text": text, "seed": seed}
    expected["2"]["inputs"]["filename_prefix"] = prefix
    expected["3"]["inputs"]["filename_prefix"] = f"{prefix}_mask"
    assert rendered == expected
    assert before == GRAPH


def test_an_input_without_a_value_is_named():
    with pytest.raises(WorkflowError, match="promptText"):
        render_prompt(WORKFLOW, GRAPH, {"seed": 1, "outputPrefix": "x"})


def test_a_suffix_needs_a_text():
    with pytest.raises(WorkflowError, match="outputPrefix"):
        render_prompt(WORKFLOW, GRAPH, {"promptText": "x", "seed": 1, "outputPrefix": 3})


def test_every_shipped_workflow_names_its_files_by_the_output_prefix():
    for workflow in CATALOG:
        values = dict.fromkeys(workflow.bindings, "x") | {"outputPrefix": "42-p"}
        rendered = render_prompt(workflow, CATALOG.graph(workflow.workflow), values)
        prefixes = [
            node["inputs"]["filename_prefix"]
            for node in rendered.values()
            if "filename_prefix" in node["inputs"]
        ]
        assert prefixes
        assert all(prefix.startswith("42-p") for prefix in prefixes)

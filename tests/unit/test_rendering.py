import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_service.domain.errors import WorkflowError
from ml_service.domain.graphs import read_graph
from ml_service.domain.manifests import Workflow
from ml_service.domain.rendering import render_prompt
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


@pytest.mark.reference_graphs
def test_every_shipped_workflow_names_its_files_by_the_output_prefix():
    for workflow in CATALOG:
        values = dict.fromkeys([*workflow.inputs, "seed"], "x") | {"outputPrefix": "42-p"}
        rendered = render_prompt(workflow, CATALOG.graph(workflow.workflow), values)
        prefixes = [
            node["inputs"]["filename_prefix"]
            for node in rendered.values()
            if "filename_prefix" in node["inputs"]
        ]
        assert prefixes
        assert all(prefix.startswith("42-p") for prefix in prefixes)


NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text('abc_"\\')
)
VALUES = {
    "text": st.text(),
    "integer": st.integers(),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "list": st.lists(st.text() | st.integers()).map(tuple),
}


@st.composite
def bound_graphs(draw):
    """A graph without placeholders, a manifest that binds some of its inputs, and values."""
    ids = [str(n) for n in range(1, draw(st.integers(1, 12)) + 1)]
    graph = {
        node: {
            "class_type": draw(NAMES),
            "inputs": {
                **draw(st.dictionaries(NAMES, SCALARS, max_size=3)),
                "link": [draw(st.sampled_from(ids)), 0],
                "free": draw(SCALARS),
            },
        }
        for node in ids
    }
    kinds = draw(st.dictionaries(NAMES.map("x_{}".format), st.sampled_from(sorted(VALUES))))
    extra = {"list": {"of": "text"}}
    nodes = draw(st.permutations(ids))
    bindings = {
        name: [{"node": node, "input": draw(st.sampled_from(free_inputs(graph[node])))}]
        for name, node in zip([*kinds, "seed"], nodes, strict=False)
    }
    workflow = Workflow.model_validate(
        {
            "workflow": "sample",
            "fleet": "pulid",
            "inputs": {name: {"type": k, **extra.get(k, {})} for name, k in kinds.items()},
            "bindings": bindings,
            "outputs": {"kind": "image"},
            "expected_seconds": 1,
        }
    )
    values = {name: draw(VALUES[kind]) for name, kind in kinds.items()}
    return workflow, graph, {**values, "seed": draw(st.integers(0, 2**64 - 1))}


def free_inputs(node):
    return [name for name in node["inputs"] if name != "link"]


@settings(deadline=None)
@given(bound_graphs())
def test_rendering_by_bindings_changes_bound_inputs_only_and_is_repeatable(case):
    workflow, graph, values = case
    expected = copy.deepcopy(graph)
    for name, (binding,) in workflow.bindings.items():
        value = values[name]
        is_list = isinstance(value, tuple)
        expected[binding.node]["inputs"][binding.input] = (
            {"__value__": list(value)} if is_list else value
        )
    before = copy.deepcopy(graph)
    rendered = render_prompt(workflow, graph, values)

    assert rendered == expected
    assert graph == before
    assert render_prompt(workflow, graph, values) == rendered
    assert json.loads(json.dumps(rendered)) == rendered
    assert [node["inputs"]["link"] for node in rendered.values()] == [
        node["inputs"]["link"] for node in graph.values()
    ]


MARKED = Workflow.model_validate(
    {
        "workflow": "sample",
        "fleet": "pulid",
        "inputs": {
            "positive": {"type": "text"},
            "tags": {"type": "list", "of": "text"},
            "strength": {"type": "number"},
            "fast": {"type": "boolean"},
        },
        "tokens": {"PROMPT_TOKEN": "positive", "PROMPT_TOKEN_TWO": "strength"},
        "outputs": {"kind": "image"},
        "expected_seconds": 1,
    }
)


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ('"PROMPT_TOKEN"', "say PROMPT_TOKEN_TWO"),
        ('"(PROMPT_TOKEN:1.2), PROMPT_TOKEN_TWO"', "(say PROMPT_TOKEN_TWO:1.2), 0.5"),
        ("PROMPT_TOKEN_TWO", 0.5),
        ("-___strength___", -0.5),
        ('{"__value__": ["2", -1___strength___]}', {"__value__": ["2", -10.5]}),
        ("___tags___", {"__value__": ["a", "b"]}),
        ('"___fast___"', "true"),
        ("___fast___", True),
        ('["x", {"y": "___strength___"}]', ["x", {"y": "0.5"}]),
    ],
)
def test_tokens_and_placeholders_take_the_form_of_the_place_that_they_stand_in(literal, expected):
    graph = read_graph('{"1": {"class_type": "A", "inputs": {"x": ' + literal + "}}}")
    values = {
        "positive": "say PROMPT_TOKEN_TWO",
        "tags": ("a", "b"),
        "strength": 0.5,
        "fast": True,
    }
    assert render_prompt(MARKED, graph, values)["1"]["inputs"]["x"] == expected


def test_a_list_without_a_separator_cannot_become_a_text():
    graph = read_graph('{"1": {"class_type": "A", "inputs": {"x": "___tags___"}}}')
    with pytest.raises(WorkflowError, match="separator"):
        render_prompt(MARKED, graph, {"tags": ("a",)})


def test_a_placeholder_that_makes_no_number_of_what_is_around_it_is_named():
    graph = read_graph('{"1": {"class_type": "A", "inputs": {"x": ___strength___.0}}}')
    with pytest.raises(WorkflowError, match=r"nothing makes a number of ___strength___\.0"):
        render_prompt(MARKED, graph, {"strength": 0.5})


def test_no_value_turns_a_list_into_a_link():
    graph = read_graph('{"1": {"class_type": "A", "inputs": {"x": ["2", ___strength___]}}}')
    with pytest.raises(WorkflowError, match="would become a link"):
        render_prompt(MARKED, graph, {"strength": 1})

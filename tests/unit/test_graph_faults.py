"""Each fault is named with node and input, and says what to do."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_service.domain.errors import WorkflowError
from ml_service.domain.graph_faults import find_faults, find_graph_faults, find_unused_inputs
from ml_service.domain.graphs import read_graph
from ml_service.domain.manifests import Workflow
from ml_service.domain.workflows import WorkflowCatalog


def make_workflow(**changes: Any) -> Workflow:
    return Workflow.model_validate(
        {
            "workflow": "sample",
            "fleet": "pulid",
            "inputs": {
                "promptText": {"type": "text"},
                "photo": {"type": "image"},
                "tags": {"type": "list", "of": "text", "default": []},
            },
            "tokens": {"POSITIVE_PROMPT_PLACEHOLDER": "promptText"},
            "outputs": {"kind": "image"},
            "expected_seconds": 1,
            **changes,
        }
    )


def make_node(class_type: str, title: str = "", **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title or class_type}}


SAVER = make_node("SaveImage", filename_prefix="___outputPrefix___")


def faults(graph: str | dict[str, Any], **changes: Any) -> list[str]:
    text = graph if isinstance(graph, str) else json.dumps(graph)
    return [str(fault) for fault in find_faults(make_workflow(**changes), read_graph(text))]


def bound(*bindings: dict[str, str]) -> dict[str, Any]:
    return {"bindings": {"seed": list(bindings)}}


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        (
            make_node("KSampler", seed="___sed___"),
            "node 3 (KSampler), input seed: ___sed___ is no placeholder of this workflow, so "
            "nothing fills it; did you mean ___seed___?",
        ),
        (
            make_node("Text", deep={"a": ["___whatever_else___"]}),
            "node 3 (Text), input deep.a.0: ___whatever_else___ is no placeholder",
        ),
        (
            make_node("Text", tags="___tags___"),
            "node 3 (Text), input tags: ___tags___ stands for a list: give it a separator",
        ),
        (
            make_node("VAEDecode", samples=["8", 0]),
            "node 3 (VAEDecode), input samples: it takes an output of node 8, which the graph does",
        ),
        (
            make_node("Text", link=["___promptText___", 0]),
            "node 3 (Text), input link: it takes an output of node ___promptText___",
        ),
        (
            make_node("Text", ___promptText___=1),
            "node 3 (Text): a placeholder cannot stand in the name ___promptText___",
        ),
        (
            make_node("Text", deep=[{"___seed___": 1}]),
            "node 3 (Text): a placeholder cannot stand in the name ___seed___",
        ),
        (make_node("___promptText___"), "___promptText___ cannot stand for a class of nodes"),
        (make_node("A", x=["3", 0]), "nodes wait for each other: 3 takes from 3"),
    ],
)
def test_a_wrong_node_is_named(node: dict[str, object], sentence: str):
    (found,) = faults({"1": SAVER, "3": node})
    assert sentence in found


def test_a_bare_word_that_nothing_fills_is_named_with_its_place_in_the_file():
    saver = json.dumps(SAVER)
    (found,) = faults(f'{{"1": {saver},\n"3": {{"class_type": "A", "inputs": {{"x": True}}}}}}')
    assert "node 3 (A), input x: line 2 column 42: True is neither JSON nor a placeholder" in found


def write_input(value: str) -> str:
    """A graph with a value as it stands in a file."""
    saver = json.dumps(SAVER)
    return f'{{"1": {saver}, "3": {{"class_type": "A", "inputs": {{"x": {value}}}}}}}'


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ('["1", ___seed___]', "node 3 (A), input x: ___seed___ stands where a link has its number"),
        ("[___promptText___, 0]", "input x: ___promptText___ stands where a link has its node"),
    ],
)
def test_a_value_never_becomes_a_link(value: str, sentence: str):
    (found,) = faults(write_input(value))
    assert sentence in found


@pytest.mark.parametrize(
    "value",
    ["[___seed___, ___seed___]", '["a", 1, ___seed___]', '{"__value__": ["1", ___seed___]}'],
)
def test_a_list_that_no_server_takes_for_a_link_may_hold_placeholders(value: str):
    assert faults(write_input(value)) == []


@pytest.mark.parametrize("value", ["-___seed___", "___seed___.0", "1___seed______seed___"])
def test_a_placeholder_may_be_a_part_of_a_number(value: str):
    assert faults(write_input(value)) == []


@pytest.mark.parametrize(
    "value", ["-___promptText___", "0___seed___", "____seed___", "___seed___-"]
)
def test_what_no_value_makes_a_number_of_is_named(value: str):
    (found,) = faults(write_input(value))
    assert f"{value} is neither JSON nor a placeholder" in found


def test_titles_may_say_what_they_like():
    graph = {"1": SAVER, "2": make_node("A", "____LOADERS____ ___seed___")}
    assert faults(graph) == []
    assert "seed" in find_unused_inputs(make_workflow(), read_graph(json.dumps(graph)))
    titled = {"1": make_node("SaveImage", "___SAVE___", filename_prefix="x")}
    bindings = {"outputPrefix": [{"title": "___SAVE___", "input": "filename_prefix"}]}
    assert faults(titled, bindings=bindings) == []


def test_every_node_of_a_cycle_is_named():
    graph = {"1": SAVER, **{str(n): make_node("A", x=[str(n % 3 + 2), 0]) for n in (2, 3, 4)}}
    (found,) = faults(graph)
    assert found.startswith("nodes wait for each other: ")
    assert found.endswith("; remove one of these links")
    assert all(f"{n}" in found for n in (2, 3, 4))


def test_a_graph_whose_results_could_not_be_told_apart_is_refused():
    (found,) = faults({"1": make_node("SaveImage", filename_prefix="ComfyUI")})
    assert "no node takes the output prefix" in found
    titled = make_node("SaveImage", "___outputPrefix___", filename_prefix="ComfyUI")
    assert faults({"1": titled}) == [found]


def test_a_role_without_a_file_is_named_with_the_name_to_save_it_under():
    outputs = {"kind": "image", "roles": {"main": "_608x1080", "mask": "_mask"}}
    main = make_node("SaveImage", filename_prefix="___outputPrefix____608x1080")
    other = make_node("SaveImage", filename_prefix="___outputPrefix____128x128")
    assert faults({"1": main, "2": other}, outputs=outputs) == [
        "no file has the role mask: save one under a name with _mask behind the output prefix"
    ]
    assert faults({"1": main}, outputs=outputs) == [], "a single file is the main one"


SAMPLERS = {
    "1": make_node("SaveImage", filename_prefix="PREFIX_TOKEN"),
    "3": make_node("KSampler", "First", seed=1, model=["5", 0]),
    "4": make_node("KSampler", "Second", seed=2),
    "5": make_node("Loader", name="x"),
}


@pytest.mark.parametrize(
    ("binding", "sentence"),
    [
        ({"node": "4", "input": "seed"}, None),
        ({"title": "First", "input": "seed"}, None),
        ({"class_type": "Loader", "input": "name"}, None),
        ({"class_type": "KSampler", "title": "Second", "input": "seed"}, None),
        ({"class_type": "KSampler", "input": "model"}, "it takes another node's output"),
        (
            {"class_type": "KSampler", "input": "seed"},
            'the node with class KSampler, which may be 3 ("First"), 4 ("Second"): name one by its',
        ),
        (
            {"node": "4", "input": "noise_seed"},
            "node 4 (KSampler), input noise_seed: seed is bound to it, which the node does not "
            "have; it has: seed",
        ),
        (
            {"title": "Third", "input": "seed"},
            "the node with title Third, which the graph does not have: change its binding in the "
            'manifest; nodes with such an input: 3 ("First"), 4 ("Second")',
        ),
        ({"node": "9", "input": "y"}, "nodes with such an input: none"),
    ],
)
def test_a_binding_means_exactly_one_value(binding: dict[str, str], sentence: str | None):
    found = faults(SAMPLERS, tokens={"PREFIX_TOKEN": "outputPrefix"}, **bound(binding))
    if sentence is None:
        assert found == []
    else:
        (fault,) = found
        assert sentence in fault


def test_bindings_are_not_looked_at_in_a_graph_with_placeholders():
    assert faults({"1": SAVER}, **bound({"node": "99", "input": "seed"})) == []


def test_a_token_comes_before_the_bindings_of_its_input():
    graph = {"1": make_node("SaveImage", filename_prefix="PREFIX_TOKEN")}
    bindings = {"outputPrefix": [{"node": "99", "input": "x"}]}
    assert faults(graph, tokens={"PREFIX_TOKEN": "outputPrefix"}, bindings=bindings) == []


def test_bindings_are_looked_at_beside_a_bare_token():
    saver = json.dumps(make_node("SaveImage", filename_prefix="x"))
    graph = f'{{"1": {saver}, "2": {{"class_type": "A", "inputs": {{"seed": SEED_TOKEN}}}}}}'
    bindings = {"outputPrefix": [{"node": "1", "input": "filename_prefix"}]}
    assert faults(graph, tokens={"SEED_TOKEN": "seed"}, bindings=bindings) == []


def test_inputs_that_the_graph_does_not_take_are_listed():
    graph = read_graph(json.dumps({"1": SAVER, "2": make_node("Load", image="___image___")}))
    assert find_unused_inputs(make_workflow(), graph) == ["promptText", "tags", "seed"]


def test_a_catalog_with_a_fault_is_refused_with_file_node_and_input():
    graph = read_graph(json.dumps({"1": SAVER, "2": make_node("A", x="___nothing___")}))
    with pytest.raises(WorkflowError, match=r"pulid/sample.json: node 2 \(A\), input x"):
        WorkflowCatalog([(make_workflow(), graph)])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 300), st.randoms(use_true_random=False))
def test_an_export_of_any_size_with_unknown_nodes_has_no_faults(size: int, random: Any):
    graph: dict[str, Any] = {"1": SAVER}
    for number in range(2, size + 1):
        sources = {
            f"in{n}": [str(random.randrange(1, number)), n] for n in range(random.randrange(4))
        }
        graph[str(number)] = make_node(f"Custom {number} //Pack 🎥", text='a "b"', **sources)
    text = json.dumps(graph, indent=random.choice([None, 2]))
    assert find_graph_faults(read_graph(text)) == []
    assert faults(text) == []

"""Graphs against node classes, in the form of /object_info."""

import json
from typing import Any

import pytest

from ml_service.domain.graphs import read_graph
from ml_service.domain.manifests import Workflow
from ml_service.domain.node_definitions import find_definition_faults, find_missing_needs
from tests.makers import CATALOG, PROJECT

CAPTURE = PROJECT.parent / "shared" / "comfyui-captures" / "object_info_stock_nodes.json"

DEFINITIONS: dict[str, Any] = {
    "Loader": {
        "input": {"required": {"name": [["a.safetensors", "b\\c.safetensors"], {}]}},
        "output": ["MODEL", ["euler", "heun"]],
        "output_node": False,
        "python_module": "custom_nodes.ComfyUI-Pack",
    },
    "Sampler": {
        "input": {
            "required": {
                "model": ["MODEL", {}],
                "seed": ["INT", {"min": 0, "max": 100}],
                "sampler": ["COMBO", {"options": ["euler", "heun"]}],
                "remote": ["COMBO", {"remote": {"route": "/x"}}],
                "several": ["COMBO", {"options": ["a", "b"], "multiselect": True}],
            },
            "optional": {"cfg": ["FLOAT", {"min": 0.5}], "any": ["*", {}], "on": ["BOOLEAN"]},
            "hidden": {"prompt": "PROMPT"},
        },
        "output": ["IMAGE"],
    },
    "Save": {
        "input": {
            "required": {"images": ["IMAGE,MASK", {}], "filename_prefix": ["STRING", {}]},
        },
        "output": [],
        "output_node": True,
    },
    "Dynamic": {
        "input": {"required": {"values": ["COMFY_AUTOGROW_V3", {}]}},
        "output": ["COMFY_MATCHTYPE_V3"],
    },
}
GRAPH: dict[str, Any] = {
    "1": {"class_type": "Loader", "inputs": {"name": "a.safetensors"}},
    "2": {
        "class_type": "Sampler",
        "inputs": {
            "model": ["1", 0],
            "seed": "___seed___",
            "sampler": ["1", 1],
            "remote": "anything",
            "several": {"__value__": ["b", "a"]},
            "cfg": "7.5",
            "any": ["1", 0],
            "unknown": {"x": 1},
        },
    },
    "3": {
        "class_type": "Save",
        "inputs": {"images": ["2", 0], "filename_prefix": "___outputPrefix___"},
    },
}
WORKFLOW = Workflow.model_validate(
    {
        "workflow": "sample",
        "fleet": "pulid",
        "inputs": {"promptText": {"type": "text"}},
        "outputs": {"kind": "image"},
        "expected_seconds": 1,
        "models": [
            {"folder": "checkpoints", "file": "b/c.safetensors"},
            {"folder": "vae", "file": "absent.safetensors"},
        ],
        "custom_nodes": ["ComfyUI-Pack", "ComfyUI-Absent"],
    }
)


def faults(node: str = "", **inputs: Any) -> list[str]:
    """The faults of the graph with some inputs changed; an input of None is taken out."""
    graph = json.loads(json.dumps(GRAPH))
    if node:
        changed = {**graph[node]["inputs"], **inputs}
        graph[node]["inputs"] = {k: v for k, v in changed.items() if v is not None}
    return read_faults(json.dumps(graph))


def read_faults(text: str) -> list[str]:
    found = find_definition_faults(read_graph(text), DEFINITIONS, WORKFLOW)
    return [str(fault) for fault in found]


def test_a_graph_that_a_server_takes_has_no_faults():
    assert faults() == []


@pytest.mark.parametrize(
    ("node", "inputs", "sentence"),
    [
        ("2", {"model": None}, "node 2 (Sampler), input model: it is missing"),
        ("1", {"name": "z.safetensors"}, "'z.safetensors' is not in the server's list"),
        ("2", {"sampler": "ddim"}, "choose of euler, heun"),
        ("2", {"seed": 101}, "input seed: 101 is more than 100"),
        ("2", {"cfg": 0}, "input cfg: 0 is less than 0.5"),
        ("2", {"cfg": "high"}, "'high' is no FLOAT"),
        ("2", {"seed": [1, 2, 3]}, "[1, 2, 3] is no INT, and no link"),
        ("2", {"seed": {"__value__": 101}}, "input seed: 101 is more than 100"),
        ("2", {"model": [1, 0]}, "[1, 0] is no MODEL, and no link"),
        ("2", {"several": {"__value__": ["a", "c"]}}, "'c' is not in the server's list"),
        ("2", {"sampler": {"__value__": ["euler"]}}, "['euler'] is not in the server's list"),
        ("3", {"images": ["1", 0]}, "it takes IMAGE,MASK, but output 0 of node 1 is MODEL"),
        ("3", {"images": ["2", 4]}, "node 2 has no output 4"),
        ("2", {"seed": "___promptText___"}, None),
    ],
)
def test_what_a_server_would_refuse_is_named(
    node: str, inputs: dict[str, Any], sentence: str | None
):
    found = faults(node, **inputs)
    if sentence is None:
        assert found == [], "a text may hold a number"
    else:
        (fault,) = found
        assert sentence in fault


def test_a_text_cannot_stand_bare_where_a_number_belongs():
    text = json.dumps(GRAPH).replace('"___seed___"', "___promptText___")
    (fault,) = read_faults(text)
    assert "input seed: it takes INT, but promptText is a text" in fault


def test_a_class_that_is_not_installed_is_named():
    graph = {**GRAPH, "9": {"class_type": "Absent //Pack", "inputs": {}}}
    (fault,) = read_faults(json.dumps(graph))
    assert fault.startswith("node 9 (Absent //Pack): the server does not have this class")


def test_a_graph_without_an_output_node_is_refused():
    graph = {"1": GRAPH["1"]}
    assert read_faults(json.dumps(graph)) == ["no node is an output node: add one that saves"]


def test_inputs_that_change_with_others_are_left_to_the_server():
    graph = {
        **GRAPH,
        "4": {"class_type": "Dynamic", "inputs": {}},
        "5": {"class_type": "Save", "inputs": {"images": ["4", 0], "filename_prefix": "x"}},
    }
    assert read_faults(json.dumps(graph)) == []


def test_models_and_custom_nodes_that_the_manifest_needs_are_looked_for():
    assert find_missing_needs(WORKFLOW, DEFINITIONS) == [
        "the model vae/absent.safetensors is not on the server",
        "the custom node ComfyUI-Absent is not on the server",
    ]


@pytest.mark.skipif(not CAPTURE.is_file(), reason="no recorded /object_info beside the project")
@pytest.mark.parametrize("workflow", list(CATALOG), ids=lambda workflow: workflow.workflow)
def test_every_reference_graph_is_valid_by_a_real_servers_classes(workflow: Workflow):
    definitions = json.loads(CAPTURE.read_text())
    graph = CATALOG.graph(workflow.workflow)
    assert [str(f) for f in find_definition_faults(graph, definitions, workflow)] == []

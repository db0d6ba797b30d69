from pathlib import Path
from typing import Any

import pytest

from local.comfyui.media_folders import MediaFolders
from local.comfyui.model_files import ModelError, add_models
from local.comfyui.node_catalog import CustomNode, NodeCatalog
from local.comfyui.node_definitions import NODE_DEFINITIONS
from local.comfyui.node_run import NodeResult
from local.comfyui.node_types import Input, MediaKind, NodeDefinition, NodeForm
from local.comfyui.nodes import NODE_IMPLEMENTATIONS
from local.comfyui.validation import PromptValidator, ValidatedPrompt
from tests.unit.comfyui_simulator.simulator_client import (
    Graph,
    node,
    picture_graph,
    text_to_image_graph,
)


class OneFile(MediaFolders):
    """An input folder that seems to hold here.png."""

    def has_input(self, annotated_name: object) -> bool:
        return annotated_name == "here.png"

    def list_inputs(self, kind: MediaKind) -> list[str]:
        return []


def validate(graph: Graph, targets: list[str] | None = None, **catalog: Any) -> ValidatedPrompt:
    return PromptValidator(NodeCatalog(OneFile(Path("nowhere")), **catalog)).validate(
        graph, targets
    )


def error_types(result: ValidatedPrompt) -> dict[str, list[str]]:
    return {
        node_id: [error["type"] for error in entry["errors"]]
        for node_id, entry in result.node_errors.items()
    }


def test_every_defined_node_can_run_and_takes_its_inputs() -> None:
    assert NODE_DEFINITIONS.keys() == NODE_IMPLEMENTATIONS.keys()
    for class_type, implementation in NODE_IMPLEMENTATIONS.items():
        names = set(implementation.__code__.co_varnames[: _argument_count(implementation)])
        inputs = {item.name for item in NODE_DEFINITIONS[class_type].inputs}
        assert inputs == names - {"run", "_run"}, class_type


def _argument_count(function: Any) -> int:
    return int(function.__code__.co_argcount + function.__code__.co_kwonlyargcount)


@pytest.mark.parametrize(
    ("value", "error_type", "details"),
    [
        ("abc", "invalid_input_type", "width, abc, invalid literal for int() with base 10: 'abc'"),
        (None, "invalid_input_type", None),
        (0, "value_smaller_than_min", "width"),
        (16385, "value_bigger_than_max", "width"),
        (["1"], "bad_linked_input", "width"),
        (["2", 0], "exception_during_inner_validation", "tuple index out of range"),
        (["3", 0], "return_type_mismatch", "width, received_type(STRING) mismatch input_type(INT)"),
    ],
)
def test_a_wrong_value_is_reported_at_its_node(
    value: Any, error_type: str, details: str | None
) -> None:
    graph = picture_graph(width=value) | {"3": node("PrimitiveString", value="x")}
    result = validate(graph)

    assert result.error is not None
    assert result.error["type"] == "prompt_outputs_failed_validation"
    assert error_types(result) == {"1": [error_type]}
    assert result.node_errors["1"]["dependent_outputs"] == ["2"]
    if details is not None:
        assert result.node_errors["1"]["errors"][0]["details"] == details


@pytest.mark.parametrize(
    ("class_type", "name"), [("LoadImage", "image"), ("LoadAudio", "audio"), ("LoadVideo", "file")]
)
def test_an_absent_file_fails_custom_validation(class_type: str, name: str) -> None:
    graph = {
        "1": node(class_type, **{name: "nope.bin"}),
        "2": node("PreviewAny", source=["1", 0]),
    }
    (error,) = validate(graph).node_errors["1"]["errors"]

    kind = class_type.removeprefix("Load").lower()
    assert error["type"] == "custom_validation_failed"
    assert error["details"] == f"{name} - Invalid {kind} file: nope.bin"


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300, "../secret.png", 7, None, {"a": 1}])
def test_a_name_that_can_be_no_file_is_absent(name: Any, tmp_path: Path) -> None:
    folders = MediaFolders(tmp_path)
    folders.prepare()
    (tmp_path / "secret.png").write_bytes(b"x")

    assert folders.has_input(name) is False


def test_a_file_that_is_there_is_valid() -> None:
    graph = picture_graph() | {"1": node("LoadImage", image="here.png")}

    assert validate(graph) == ValidatedPrompt(["2"])


def test_a_cycle_is_refused_without_words() -> None:
    graph = picture_graph() | {
        "1": node("ImageInvert", image=["3", 0]),
        "3": node("ImageInvert", image=["1", 0]),
    }
    result = validate(graph)

    assert result.error is not None
    assert (result.error["type"], result.error["details"]) == (
        "prompt_outputs_failed_validation",
        "",
    )
    assert result.node_errors == {}


def test_only_the_first_unknown_class_is_named_with_its_title() -> None:
    graph = picture_graph() | {
        "3": node("NoSuchNode") | {"_meta": {"title": "My node"}},
        "4": node("AnotherOne"),
    }
    error = validate(graph).error

    assert error is not None
    assert error["type"] == "missing_node_type"
    assert error["message"] == "Node 'My node' not found. The custom node may not be installed."
    assert error["extra_info"]["class_type"] == "NoSuchNode"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({}, "Node 'ID #1' has no class_type. "),
        ({"_meta": {"title": "My node"}}, "Node 'My node' has no class_type. "),
        ({"class_type": None}, "Node 'None' not found. "),
    ],
)
def test_a_node_without_a_class_is_named_as_well_as_it_can_be(
    named: dict[str, Any], message: str
) -> None:
    error = validate({"1": {"inputs": {}, **named}}).error

    assert error is not None
    assert error["message"].startswith(message)
    title = named.get("_meta", {}).get("title")
    assert error["extra_info"] == {"node_id": "1", "class_type": None, "node_title": title}


def test_the_title_of_a_known_node_is_no_matter() -> None:
    graph = picture_graph()
    graph["1"]["_meta"] = None

    assert validate(graph) == ValidatedPrompt(["2"])


def test_outputs_outside_the_targets_are_not_looked_at() -> None:
    graph = picture_graph() | {"3": node("SaveImage", filename_prefix="x")}

    assert validate(graph, ["2"]) == ValidatedPrompt(["2"])


def test_unknown_inputs_are_ignored() -> None:
    assert validate(picture_graph(surprise=1)) == ValidatedPrompt(["2"])


def test_a_wrapped_value_is_unwrapped() -> None:
    graph = picture_graph(width={"__value__": "32"})

    assert validate(graph) == ValidatedPrompt(["2"])
    assert graph["1"]["inputs"]["width"] == 32


def test_a_long_list_of_values_is_left_out_of_the_error() -> None:
    names = tuple(f"model-{number}.safetensors" for number in range(21))
    taker = NodeDefinition(
        "TakeOne", NodeForm.CLASSIC, "m", "c", inputs=(Input("name", names),), is_output=True
    )
    custom = CustomNode(taker, lambda _run, **_inputs: NodeResult())
    result = validate({"1": node("TakeOne", name="absent.safetensors")}, custom_nodes=[custom])

    (error,) = result.node_errors["1"]["errors"]
    assert error["type"] == "value_not_in_list"
    assert error["details"] == "name: 'absent.safetensors' not in (list of length 21)"
    assert error["extra_info"]["input_config"] is None


@pytest.mark.parametrize("name", ["absent.safetensors", 7, None])
def test_a_model_that_the_server_lacks_is_not_in_the_list(name: Any) -> None:
    graph = text_to_image_graph()
    graph["4"]["inputs"]["ckpt_name"] = name
    (error,) = validate(graph, models={"checkpoints": ("mine.safetensors",)}).node_errors["4"][
        "errors"
    ]

    assert error == {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": f"ckpt_name: '{name}' not in ['mine.safetensors']",
        "extra_info": {
            "input_name": "ckpt_name",
            "input_config": [["mine.safetensors"], {}],
            "received_value": name,
        },
    }


def test_the_usual_models_are_there() -> None:
    assert validate(text_to_image_graph()) == ValidatedPrompt(["9"])


@pytest.mark.parametrize(
    ("node_id", "name", "value", "error_type"),
    [
        ("3", "sampler_name", "best", "value_not_in_list"),
        ("3", "denoise", 1.01, "value_bigger_than_max"),
        ("3", "seed", -1, "value_smaller_than_min"),
        ("3", "model", ["4", 1], "return_type_mismatch"),
        ("5", "width", 8, "value_smaller_than_min"),
        ("6", "text", None, None),
    ],
)
def test_a_stock_sampling_graph_is_checked(
    node_id: str, name: str, value: Any, error_type: str | None
) -> None:
    graph = text_to_image_graph()
    graph[node_id]["inputs"][name] = value

    assert error_types(validate(graph)) == ({} if error_type is None else {node_id: [error_type]})


def test_further_models_are_named_by_folder_and_file() -> None:
    models = add_models(["checkpoints/mine.safetensors", "loras/faces/a.safetensors"])

    assert {"mine.safetensors", "v1-5-pruned-emaonly.safetensors"} <= {*models["checkpoints"]}
    assert "faces/a.safetensors" in models["loras"]
    for wrong in ("mine.safetensors", "checkpoint/mine.safetensors", "vae/"):
        with pytest.raises(ModelError, match="FOLDER/FILE"):
            add_models([wrong])

"""Graphs against the node classes of a ComfyUI server, as its /object_info lists them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ml_service.domain.graph_faults import GraphFault
from ml_service.domain.graphs import BareWord, Graph, is_link, read_inputs
from ml_service.domain.manifests import MediaInput, TextInput, Workflow
from ml_service.domain.placeholders import Marks
from ml_service.domain.rendering import find_bound_place, list_bindings

Definitions: TypeAlias = Mapping[str, Mapping[str, object]]
"""The members of /object_info, by class."""

_ANY = "*"
_COMBO = "COMBO"
_DYNAMIC = "COMFY_"
"""Types that begin so change with the node's other inputs."""
_SHOWN_VALUES = 8
_CONVERSIONS: Mapping[str, Callable[[Any], float]] = {"INT": int, "FLOAT": float}
_NUMERIC = frozenset({"INT", "FLOAT", "BOOLEAN"})


@dataclass(frozen=True)
class _InputType:
    """What a class says of one of its inputs."""

    kind: str
    options: Mapping[str, object]
    choices: Sequence[object] | None = None
    """The values of a list; None if any will do, or if they are not told."""


def find_definition_faults(
    graph: Graph, definitions: Definitions, workflow: Workflow | None = None
) -> list[GraphFault]:
    """What a server would refuse of a graph that has no other faults.

    Values that jobs bring are held only against the kind of the input that takes them.
    """
    filled = _find_filled_inputs(graph, workflow)
    faults: list[GraphFault] = []
    for node_id, node in graph.items():
        class_type = str(node["class_type"])
        definition = definitions.get(class_type)
        if definition is None:
            sentence = "the server does not have this class: install its custom node, or update it"
            faults.append(GraphFault(sentence, node_id, class_type))
            continue
        inputs = read_inputs(node)
        for name, declared, is_required in _list_input_types(definition):
            if name not in inputs:
                found = ["it is missing: export the graph again"] if is_required else []
            elif is_link(inputs[name]):
                found = _check_link(inputs[name], declared, graph, definitions)
            elif (node_id, name) in filled:
                found = _check_kind(filled[node_id, name], declared, workflow)
            else:
                found = _check_value(inputs[name], declared)
            faults += [GraphFault(sentence, node_id, class_type, name) for sentence in found]
    known = [
        definitions[str(n["class_type"])] for n in graph.values() if n["class_type"] in definitions
    ]
    if len(known) == len(graph) and not any(definition.get("output_node") for definition in known):
        faults.append(GraphFault("no node is an output node: add one that saves"))
    return faults


def find_missing_needs(workflow: Workflow, definitions: Definitions) -> list[str]:
    """The models and custom nodes of a manifest that a server does not list."""
    files = {
        str(choice).replace("\\", "/")
        for definition in definitions.values()
        for _, declared, _ in _list_input_types(definition)
        for choice in declared.choices or ()
    }
    modules = {str(definition.get("python_module")) for definition in definitions.values()}
    return [
        f"the model {model.folder}/{model.file} is not on the server"
        for model in workflow.models
        if model.file.replace("\\", "/") not in files
    ] + [
        f"the custom node {name} is not on the server"
        for name in workflow.custom_nodes
        if f"custom_nodes.{name}" not in modules
    ]


def _find_filled_inputs(
    graph: Graph, workflow: Workflow | None
) -> Mapping[tuple[str, str], str | None]:
    """The workflow's input that is the whole of a node's input, None for a text with marks."""
    if workflow is None:
        return {}
    marks = Marks(workflow)
    filled: dict[tuple[str, str], str | None] = {}
    for node_id, node in graph.items():
        for name, value in read_inputs(node).items():
            if isinstance(value, BareWord):
                filled[node_id, name] = marks.inputs.get(value.word)
            elif marks.find(value):
                filled[node_id, name] = None
    for name, binding in list_bindings(workflow, graph):
        place = find_bound_place(name, binding, graph)
        filled[place.node, place.input] = name
    return filled


def _list_input_types(
    definition: Mapping[str, object],
) -> Iterator[tuple[str, _InputType, bool]]:
    groups = definition.get("input")
    for group in ("required", "optional"):
        inputs = groups.get(group) if isinstance(groups, Mapping) else None
        for name, spec in inputs.items() if isinstance(inputs, Mapping) else ():
            declared = _read_input_type(spec)
            if declared is not None and not declared.kind.startswith(_DYNAMIC):
                yield name, declared, group == "required"


def _read_input_type(spec: object) -> _InputType | None:
    if not isinstance(spec, list) or not spec:
        return None
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    if isinstance(spec[0], list):
        return _InputType(_COMBO, options, spec[0])
    choices = options.get("options") if spec[0] == _COMBO else None
    return _InputType(str(spec[0]), options, choices if isinstance(choices, list) else None)


def _check_link(
    link: object, declared: _InputType, graph: Graph, definitions: Definitions
) -> list[str]:
    if not isinstance(link, list) or link[0] not in graph:
        return []
    source = definitions.get(str(graph[link[0]]["class_type"]))
    outputs = source.get("output") if source is not None else None
    if not isinstance(outputs, list):
        return []
    if not 0 <= link[1] < len(outputs):
        return [f"node {link[0]} has no output {link[1]}: export the graph again"]
    received = _COMBO if isinstance(outputs[link[1]], list) else str(outputs[link[1]])
    wanted, given = set(declared.kind.split(",")), set(received.split(","))
    if _ANY in wanted | given or wanted & given or received.startswith(_DYNAMIC):
        return []
    return [f"it takes {declared.kind}, but output {link[1]} of node {link[0]} is {received}"]


def _check_kind(
    input_name: str | None, declared: _InputType, workflow: Workflow | None
) -> list[str]:
    given = workflow.inputs.get(input_name) if workflow and input_name else None
    if isinstance(given, TextInput | MediaInput) and declared.kind in _NUMERIC:
        return [f"it takes {declared.kind}, but {input_name} is a text"]
    return []


def _check_value(value: object, declared: _InputType) -> list[str]:
    if isinstance(value, Mapping) and "__value__" in value:
        value = value["__value__"]  # ComfyUI's way to say that a list is no link
    elif isinstance(value, list):
        return [f"{value!r} is no {declared.kind}, and no link to a node's output"]
    if declared.choices is not None:
        chosen = (
            value if isinstance(value, list) and declared.options.get("multiselect") else [value]
        )
        return [_say_choices(v, declared.choices) for v in chosen if v not in declared.choices]
    if declared.kind not in _CONVERSIONS:
        return []
    try:
        number = _CONVERSIONS[declared.kind](value)
    except (TypeError, ValueError, OverflowError):
        return [f"{value!r} is no {declared.kind}"]
    low, high = declared.options.get("min"), declared.options.get("max")
    found = []
    if isinstance(low, int | float) and number < low:
        found.append(f"{value} is less than {low}")
    if isinstance(high, int | float) and number > high:
        found.append(f"{value} is more than {high}")
    return found


def _say_choices(value: object, choices: Sequence[object]) -> str:
    shown = ", ".join(map(str, choices[:_SHOWN_VALUES])) or "nothing"
    more = f" and {len(choices) - _SHOWN_VALUES} more" if len(choices) > _SHOWN_VALUES else ""
    return f"{value!r} is not in the server's list: install the file, or choose of {shown}{more}"

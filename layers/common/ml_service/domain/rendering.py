"""Filling a workflow's graph: values go into parsed JSON, so no text can change the graph."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_service.domain.errors import WorkflowError
from ml_service.domain.graphs import BareWord, Graph, is_link, read_inputs, read_title
from ml_service.domain.input_values import Value
from ml_service.domain.manifests import Binding, Workflow
from ml_service.domain.placeholders import Marks, has_placeholders


@dataclass(frozen=True)
class BoundPlace:
    """The input of the one node that a binding means."""

    name: str
    """The workflow's input whose value goes there."""
    node: str
    input: str
    suffix: str


def render_prompt(
    workflow: Workflow, graph: Graph, values: Mapping[str, Value]
) -> dict[str, dict[str, object]]:
    """Return a copy of the graph with every input filled in; nothing else is changed.

    Each text of the graph is gone through once, so that what a value says is never filled again.
    Raises WorkflowError for an input that has no value, or that cannot stand where it should.
    """
    filler = _Filler(workflow, values)
    prompt: dict[str, dict[str, object]] = {}
    for node_id, node in graph.items():
        filled = {name: filler.fill(member) for name, member in node.items()}
        for name, value in read_inputs(node).items():
            if is_link(read_inputs(filled)[name]) != is_link(value):
                raise WorkflowError(f"{workflow.workflow}: {name} would become a link.")
        prompt[node_id] = filled
    for name, binding in list_bindings(workflow, graph):
        place = find_bound_place(name, binding, graph)
        inputs = prompt[place.node]["inputs"]
        if not isinstance(inputs, dict):
            raise WorkflowError(f"{workflow.workflow}: node {place.node} has no inputs.")
        inputs[place.input] = filler.make_bound_value(place)
    return prompt


def list_bindings(workflow: Workflow, graph: Graph) -> list[tuple[str, Binding]]:
    """The bindings that a graph is filled by, each with its input's name.

    There are none in a graph with placeholders, and none for an input whose token stands in it.
    """
    if has_placeholders(graph):
        return []
    marks = Marks(workflow)
    marked = {marks.inputs[mark] for mark in marks.find_all(graph)}
    return [
        (name, binding)
        for name, bindings in workflow.bindings.items()
        if name not in marked
        for binding in bindings
    ]


def find_bound_place(name: str, binding: Binding, graph: Graph) -> BoundPlace:
    """The one place that a binding means; raises WorkflowError where there is none, or several."""
    wanted = ", ".join(
        f"{what} {value}"
        for what, value in (
            ("id", binding.node),
            ("title", binding.title),
            ("class", binding.class_type),
        )
        if value is not None
    )
    nodes = [
        node_id
        for node_id, node in graph.items()
        if binding.node in (None, node_id)
        and binding.title in (None, read_title(node))
        and binding.class_type in (None, node["class_type"])
    ]
    having = [node_id for node_id in nodes if binding.input in read_inputs(graph[node_id])]
    if len(having) == 1:
        _require_value(name, binding, having[0], graph)
        return BoundPlace(name, having[0], binding.input, binding.suffix)
    if having:
        raise WorkflowError(
            f"{name} is bound to input {binding.input} of the node with {wanted}, which may be "
            f"{_list_nodes(having, graph)}: name one by its id"
        )
    if nodes:
        inputs = ", ".join(read_inputs(graph[nodes[0]])) or "none"
        raise WorkflowError(
            f"node {nodes[0]} ({graph[nodes[0]]['class_type']}), input {binding.input}: {name} is "
            f"bound to it, which the node does not have; it has: {inputs}"
        )
    others = [n for n in graph if binding.input in read_inputs(graph[n])]
    raise WorkflowError(
        f"{name} is bound to input {binding.input} of the node with {wanted}, which the graph does "
        f"not have: change its binding in the manifest; nodes with such an input: "
        f"{_list_nodes(others, graph)}"
    )


def _require_value(name: str, binding: Binding, node_id: str, graph: Graph) -> None:
    node = graph[node_id]
    if is_link(read_inputs(node)[binding.input]):
        raise WorkflowError(
            f"node {node_id} ({node['class_type']}), input {binding.input}: {name} is bound to it, "
            "but it takes another node's output: bind that node"
        )


def _list_nodes(node_ids: Sequence[str], graph: Graph) -> str:
    names = (f'{node_id} ("{read_title(graph[node_id])}")' for node_id in node_ids)
    return ", ".join(names) or "none"


class _Filler:
    """Puts one job's values in place of the marks of a workflow."""

    def __init__(self, workflow: Workflow, values: Mapping[str, Value]) -> None:
        self._workflow = workflow
        self._marks = Marks(workflow)
        self._values = values

    def fill(self, value: object) -> object:
        """A copy with every mark filled: in a text as text, for a bare word the value itself."""
        if isinstance(value, Mapping):
            return {name: self.fill(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, str):
            return self._marks.pattern.sub(self._make_text, value)
        if isinstance(value, BareWord):
            return self._fill_word(value.word)
        return value

    def make_bound_value(self, place: BoundPlace) -> object:
        value = self._read_value(place.name)
        if not place.suffix:
            return _make_json(value)
        if not isinstance(value, str):
            raise WorkflowError(f"{self._workflow.workflow}: {place.name} is no text to add to.")
        return value + place.suffix

    def _fill_word(self, word: str) -> object:
        if word in self._marks.inputs:
            return _make_json(self._read_value(self._marks.inputs[word]))
        try:
            return self._marks.read_number(word, self._make_text)
        except ValueError:
            raise WorkflowError(
                f"{self._workflow.workflow}: nothing makes a number of {word}."
            ) from None

    def _make_text(self, match: re.Match[str]) -> str:
        value = self._read_value(self._marks.inputs[match[0]])
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return repr(value)
        raise WorkflowError(
            f"{self._workflow.workflow}: {match[0]} stands for a list, which needs a separator in "
            "the manifest to become a text."
        )

    def _read_value(self, name: str) -> Value:
        if name not in self._values:
            raise WorkflowError(f"{self._workflow.workflow}: input {name} has no value.")
        return self._values[name]


def _make_json(value: Value) -> object:
    # A bare list would be a link to another node; this is ComfyUI's way to say that it is none.
    return value if isinstance(value, str | bool | int | float) else {"__value__": list(value)}

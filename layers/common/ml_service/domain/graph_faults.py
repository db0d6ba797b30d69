"""What is wrong with a graph for its workflow, found before it costs time on an instance."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from ml_service.domain.errors import WorkflowError
from ml_service.domain.graphs import BareWord, Graph, is_link, list_links, read_inputs
from ml_service.domain.manifests import (
    COMPUTED_INPUTS,
    OUTPUT_PREFIX,
    SEED,
    IntegerInput,
    ListInput,
    NumberInput,
    OutputRole,
    Workflow,
)
from ml_service.domain.placeholders import ANY_PLACEHOLDER, Marks, walk_leaves
from ml_service.domain.rendering import BoundPlace, find_bound_place, list_bindings


@dataclass(frozen=True)
class GraphFault:
    """One thing that is wrong, where it is, and what to do about it."""

    sentence: str
    node: str = ""
    class_type: str = ""
    input: str = ""

    def __str__(self) -> str:
        if not self.node:
            return self.sentence
        place = f"node {self.node} ({self.class_type})"
        return f"{place}{f', input {self.input}' if self.input else ''}: {self.sentence}"


@dataclass(frozen=True)
class _Leaf:
    """A text or bare word of a graph, and where it stands."""

    node: str
    class_type: str
    place: tuple[str, ...]
    value: str | BareWord

    def fault(self, sentence: str) -> GraphFault:
        # An input's name comes second, behind "inputs"; elsewhere the whole path is of use.
        name = ".".join(self.place[1:] if self.place[0] == "inputs" else self.place)
        return GraphFault(sentence, self.node, self.class_type, name)


def find_faults(workflow: Workflow, graph: Graph) -> list[GraphFault]:
    """Everything that is wrong with a workflow's graph; an empty list if it can be rendered."""
    marks = Marks(workflow)
    faults = [
        *find_graph_faults(graph),
        *_check_names(graph),
        *_check_links(graph, marks, workflow),
    ]
    leaves = list(_list_leaves(graph))
    faults += [fault for leaf in leaves for fault in _check_marks(leaf, marks, workflow)]
    bound = []
    for name, binding in list_bindings(workflow, graph):
        try:
            bound.append(find_bound_place(name, binding, graph))
        except WorkflowError as error:
            faults.append(GraphFault(str(error)))
    return faults + _check_results(workflow, _list_file_names(leaves, marks, bound))


def find_graph_faults(graph: Graph) -> list[GraphFault]:
    """What is wrong with the links of a graph, whatever fills it."""
    faults = []
    sources: dict[str, list[str]] = {}
    for node_id, node in graph.items():
        sources[node_id] = []
        for link in list_links(node):
            if link.source in graph:
                sources[node_id].append(link.source)
                continue
            sentence = (
                f"it takes an output of node {link.source}, which the graph does not have: "
                "export the graph again"
            )
            faults.append(GraphFault(sentence, node_id, str(node["class_type"]), link.input))
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        cycle = " takes from ".join(reversed(error.args[1]))
        faults.append(GraphFault(f"nodes wait for each other: {cycle}; remove one of these links"))
    return faults


def find_placeholder_faults(graph: Graph) -> list[GraphFault]:
    """Every placeholder in a graph that takes no inputs at all."""
    return [
        leaf.fault(f"nothing fills {word} here: no job brings values, so write one in its place")
        for leaf in _list_leaves(graph)
        for word in _find_words(leaf)
    ]


def find_unused_inputs(workflow: Workflow, graph: Graph) -> list[str]:
    """The inputs that a graph without faults does not take, in the manifest's order."""
    marks = Marks(workflow)
    used = {marks.inputs[mark] for mark in marks.find_all(graph)}
    used |= {name for name, _ in list_bindings(workflow, graph)}
    return [name for name in (*workflow.inputs, *sorted(COMPUTED_INPUTS)) if name not in used]


def _list_leaves(graph: Graph) -> Iterator[_Leaf]:
    for node_id, node in graph.items():
        for place, value in walk_leaves(node):
            if isinstance(value, str | BareWord):
                yield _Leaf(node_id, str(node["class_type"]), place, value)


def _check_names(graph: Graph) -> Iterator[GraphFault]:
    for node_id, node in graph.items():
        for name in (node_id, *_list_names(read_inputs(node))):
            if ANY_PLACEHOLDER.search(name):
                sentence = f"a placeholder cannot stand in the name {name}"
                yield GraphFault(sentence, node_id, str(node["class_type"]))


def _list_names(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from value
    if isinstance(value, Mapping | list):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _list_names(member)


def _check_links(graph: Graph, marks: Marks, workflow: Workflow) -> Iterator[GraphFault]:
    """Find the bare words whose values would make a link of a list."""
    for node_id, node in graph.items():
        for name, value in read_inputs(node).items():
            if not isinstance(value, list) or is_link(value):
                continue
            sample = [_make_sample(item, marks, workflow) for item in value]
            if is_link(sample):
                word, what = (
                    (value[1], "number") if isinstance(value[1], BareWord) else (value[0], "node")
                )
                sentence = f"{word.word} stands where a link has its {what}"
                yield GraphFault(sentence, node_id, str(node["class_type"]), name)


def _make_sample(item: object, marks: Marks, workflow: Workflow) -> object:
    """Something of the type that a bare word becomes."""
    if not isinstance(item, BareWord):
        return item
    return 1 if _becomes_number(item.word, marks, workflow) else item.word


def _becomes_number(word: str, marks: Marks, workflow: Workflow) -> bool:
    """Whether numbers in place of a bare word's marks make a number of it."""

    def replace(match: re.Match[str]) -> str:
        name = marks.inputs[match[0]]
        is_number = isinstance(workflow.inputs.get(name), IntegerInput | NumberInput)
        return "1" if is_number or name == SEED else match[0]

    try:
        marks.read_number(word, replace)
    except ValueError:
        return False
    return True


def _check_marks(leaf: _Leaf, marks: Marks, workflow: Workflow) -> Iterator[GraphFault]:
    found = marks.find(leaf.value)
    for word in _find_words(leaf):
        if word not in marks.inputs and not (found and _becomes_number(word, marks, workflow)):
            yield leaf.fault(_say_unknown(word, leaf.value, marks))
    if found and leaf.place[0] == "class_type":
        yield leaf.fault(f"{found[0]} cannot stand for a class of nodes")
    for mark in found:
        declared = workflow.inputs.get(marks.inputs[mark])
        is_text = isinstance(leaf.value, str)
        if isinstance(declared, ListInput) and declared.separator is None and is_text:
            yield leaf.fault(f"{mark} stands for a list: give it a separator in the manifest")


def _find_words(leaf: _Leaf) -> Sequence[str]:
    """What has to be filled; titles, and what else no server looks at, may say what they like."""
    if isinstance(leaf.value, BareWord):
        return [leaf.value.word]
    is_read = isinstance(leaf.value, str) and leaf.place[0] in ("inputs", "class_type")
    return ANY_PLACEHOLDER.findall(leaf.value) if is_read else []


def _say_unknown(word: str, value: object, marks: Marks) -> str:
    where = (
        f"line {value.line} column {value.column}: {word} is neither JSON nor a placeholder of "
        if isinstance(value, BareWord)
        else f"{word} is no placeholder of "
    )
    similar = difflib.get_close_matches(word, marks.inputs, n=1)
    known = f"did you mean {similar[0]}?" if similar else f"it has {', '.join(marks.inputs)}"
    return f"{where}this workflow, so nothing fills it; {known}"


def _list_file_names(
    leaves: Sequence[_Leaf], marks: Marks, bound: Sequence[BoundPlace]
) -> list[str]:
    """What stands behind the output prefix, at each place where it goes."""
    names = [place.suffix for place in bound if place.name == OUTPUT_PREFIX]
    for leaf in leaves:
        for mark in marks.find(leaf.value) if leaf.place[0] == "inputs" else ():
            if marks.inputs[mark] == OUTPUT_PREFIX:
                text = leaf.value if isinstance(leaf.value, str) else ""
                names.append(text.partition(mark)[2])
    return names


def _check_results(workflow: Workflow, names: Sequence[str]) -> list[GraphFault]:
    if not names:
        return [
            GraphFault(
                f"no node takes the output prefix, so results could not be told apart: put "
                f"___{OUTPUT_PREFIX}___ into the file name of the node that saves, or bind it"
            )
        ]
    if len(names) == 1:
        return []
    roles: Mapping[OutputRole, str] = workflow.outputs.roles
    return [
        GraphFault(
            f"no file has the role {role}: save one under a name with {pattern} behind the output "
            "prefix"
        )
        for role, pattern in roles.items()
        if not any(pattern in name for name in names)
    ]

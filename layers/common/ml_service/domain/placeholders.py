"""The marks in a graph's texts that stand for inputs: ``___name___``, and a manifest's tokens."""

import json
import re
from collections.abc import Callable, Iterator, Mapping

from ml_service.domain.graphs import BareWord, Graph, read_inputs
from ml_service.domain.manifests import COMPUTED_INPUTS, Workflow

MAIN_PLACEHOLDERS = ("input", "image", "video")
"""Each of them stands for the main input file, whatever the manifest calls it."""
ANY_PLACEHOLDER = re.compile(r"___[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*___")


class Marks:
    """What stands for the inputs of one workflow, to be looked for in one pass."""

    def __init__(self, workflow: Workflow) -> None:
        placeholders = {name: name for name in (*workflow.inputs, *sorted(COMPUTED_INPUTS))}
        if workflow.main_input is not None:
            for alias in MAIN_PLACEHOLDERS:
                placeholders.setdefault(alias, workflow.main_input)
        self.inputs: Mapping[str, str] = {
            **workflow.tokens,
            **{f"___{name}___": stands_for for name, stands_for in placeholders.items()},
        }
        """The name of the input that each mark stands for."""
        longest_first = sorted(self.inputs, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)))

    def find(self, leaf: object) -> list[str]:
        """Every mark in a text or bare word."""
        return self.pattern.findall(_read_text(leaf))

    def find_all(self, graph: Graph) -> Iterator[str]:
        """Every mark in the inputs of a graph's nodes."""
        for node in graph.values():
            for _, leaf in walk_leaves(read_inputs(node)):
                yield from self.find(leaf)

    def read_number(self, word: str, replace: Callable[[re.Match[str]], str]) -> int | float:
        """The number that a bare word with marks becomes, as -___seed___; raises ValueError."""
        number = json.loads(self.pattern.sub(replace, word))
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(word)
        return number


def has_placeholders(graph: Graph) -> bool:
    """Whether the graph was made to be filled by placeholders, and by nothing else."""
    return any(
        ANY_PLACEHOLDER.search(_read_text(leaf))
        for node in graph.values()
        for _, leaf in walk_leaves(read_inputs(node))
    )


def _read_text(leaf: object) -> str:
    if isinstance(leaf, BareWord):
        return leaf.word
    return leaf if isinstance(leaf, str) else ""


def walk_leaves(
    value: object, place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every text, number and bare word of a node, with the names that lead to it."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from walk_leaves(member, (*place, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk_leaves(item, (*place, str(index)))
    else:
        yield place, value

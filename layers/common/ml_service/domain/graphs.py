"""Graph files: ComfyUI's API format, as exported or with bare words where values will stand."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ml_service.domain.errors import WorkflowError

Graph: TypeAlias = Mapping[str, Mapping[str, object]]
"""An API-format ComfyUI graph: node id to class_type and inputs."""

_SCANNED = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z0-9_.+-]+', re.DOTALL)
_NUMBER = re.compile(r"-?\d[0-9.eE+-]*")
_MAX_DEPTH = 100
"""Less than Python's own limit, which everything that goes through a graph would meet."""
_TOO_DEEP = "not a graph: it is nested too deeply"
_JSON_WORDS = frozenset({"true", "false", "null"})
_STAND_IN = "NaN"
_EXPORT = (
    'In ComfyUI choose "Workflow > Export (API)", which older versions call "Save (API Format)", '
    "and use that file."
)


@dataclass(frozen=True)
class BareWord:
    """What stands in a graph file where JSON wants a value: ``___seed___``, ``-___seed___``."""

    word: str
    line: int
    column: int


@dataclass(frozen=True)
class Link:
    """An input that takes another node's output."""

    input: str
    source: str
    slot: int


def read_graph(text: str) -> Graph:
    """Read the text of a graph file; every bare word in place of a value becomes a BareWord.

    Raises WorkflowError with the line and column, or with what the file is instead.
    """
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise WorkflowError(f"the file is empty. {_EXPORT}")
    words: list[BareWord] = []

    def stand_in(match: re.Match[str]) -> str:
        word = match[0]
        if word[0] == '"' or word in _JSON_WORDS or _NUMBER.fullmatch(word):
            return word
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        if word in ("NaN", "Infinity", "-Infinity"):
            raise WorkflowError(f"line {line} column {column}: {word} is no JSON number")
        if len(word) < len(_STAND_IN):
            return word  # too short to be a placeholder: the parser will say where it stands
        words.append(BareWord(word, line, column))
        # As long as the word, so that the parser's lines and columns are the file's own.
        return _STAND_IN.ljust(len(word))

    parsable = _SCANNED.sub(stand_in, text)
    waiting = iter(words)
    try:
        graph = json.loads(
            parsable,
            object_pairs_hook=_unique_names,
            parse_constant=lambda _: next(waiting),
        )
    except json.JSONDecodeError as error:
        raise WorkflowError(
            f"line {error.lineno} column {error.colno}: not valid JSON: {error.msg}"
        ) from None
    except ValueError as error:  # such as a number of 5,000 digits
        raise WorkflowError(f"not valid JSON: {str(error).split(';')[0]}") from None
    except RecursionError:
        raise WorkflowError(_TOO_DEEP) from None
    _check_shape(graph)
    if _is_deeper(graph, _MAX_DEPTH):
        raise WorkflowError(_TOO_DEEP)
    return graph  # type: ignore[no-any-return]


def is_link(value: object) -> bool:
    """Whether an input's value is another node's output, as ``["4", 0]``."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )


def list_links(node: Mapping[str, object]) -> Iterator[Link]:
    """Every input of a node that takes another node's output."""
    for name, value in read_inputs(node).items():
        if isinstance(value, list) and is_link(value):
            yield Link(name, value[0], value[1])


def read_inputs(node: Mapping[str, object]) -> Mapping[str, object]:
    """The inputs of a node of a graph that was read."""
    inputs = node["inputs"]
    if not isinstance(inputs, Mapping):
        raise TypeError("a graph that was read has inputs at every node")
    return inputs


def read_title(node: Mapping[str, object]) -> str:
    """The title that ComfyUI shows, or the class of a node without one."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return title if isinstance(title, str) and title else str(node["class_type"])


def _is_deeper(value: object, depth: int) -> bool:
    """Whether lists and objects lie in each other more than ``depth`` deep."""
    if not isinstance(value, dict | list):
        return False
    members = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(member, depth - 1) for member in members)


def _check_shape(graph: object) -> None:
    if not isinstance(graph, dict):
        raise WorkflowError(f"not a graph but a JSON {type(graph).__name__}. {_EXPORT}")
    if _is_ui_format(graph) or any(_is_ui_format(value) for value in graph.values()):
        raise WorkflowError(
            f"this is ComfyUI's UI format, which only its own pages can run. {_EXPORT}"
        )
    if not graph:
        raise WorkflowError(f"the graph has no nodes. {_EXPORT}")
    prompt = graph.get("prompt")
    if isinstance(prompt, dict) and "class_type" not in prompt:
        raise WorkflowError('this is a request to /prompt: keep only what stands under "prompt"')
    for node_id, node in graph.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            raise WorkflowError(
                f"not a graph in API format: {node_id} is no node with a class_type. {_EXPORT}"
            )
        if not isinstance(node.get("inputs"), dict):
            raise WorkflowError(f"node {node_id} ({node['class_type']}) has no inputs. {_EXPORT}")


def _is_ui_format(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("nodes"), list)


def _unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise WorkflowError(f"the name {twice} is there twice in one object: remove one")
    return members

"""The nodes for plain values and text."""

import json
from typing import Any

from local.comfyui.node_run import NodeImplementation, NodeResult, NodeRun


def pass_value(_run: NodeRun, *, value: Any) -> NodeResult:
    """PrimitiveString and its like: the value itself."""
    return NodeResult((value,))


def concatenate_strings(
    _run: NodeRun, *, string_a: str, string_b: str, delimiter: str
) -> NodeResult:
    """StringConcatenate: both texts with the delimiter between them."""
    return NodeResult((delimiter.join((string_a, string_b)),))


def replace_in_string(_run: NodeRun, *, string: str, find: str, replace: str) -> NodeResult:
    """StringReplace: every occurrence replaced."""
    return NodeResult((string.replace(find, replace),))


def preview_as_text(_run: NodeRun, *, source: Any = None) -> NodeResult:
    """PreviewAny: any value as text in the history."""
    return NodeResult(shown={"text": [_as_text(source)]})


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | bool):
        return str(value)
    try:
        return json.dumps(value)
    except TypeError:
        # Pictures and sounds have no JSON form; ComfyUI shows their printed form too.
        return str(value)


IMPLEMENTATIONS: dict[str, NodeImplementation] = {
    "PrimitiveString": pass_value,
    "PrimitiveStringMultiline": pass_value,
    "PrimitiveInt": pass_value,
    "PrimitiveFloat": pass_value,
    "PrimitiveBoolean": pass_value,
    "StringConcatenate": concatenate_strings,
    "StringReplace": replace_in_string,
    "PreviewAny": preview_as_text,
}

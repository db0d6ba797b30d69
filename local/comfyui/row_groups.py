"""Finds out which inputs a node has when it is a prompt that says how often some are repeated."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from local.comfyui.node_types import Input, NodeDefinition, RowGroup


class DynamicInputError(ValueError):
    """When a prompt repeats inputs in a way that their node does not take."""

    def __init__(self, input_name: str, message: str) -> None:
        super().__init__(message)
        self.input_name = input_name


def expand_rows(definition: NodeDefinition, given: Mapping[str, Any]) -> NodeDefinition:
    """Return a definition with the rows that a prompt gives in place of each group.

    Raises DynamicInputError.
    """
    if not any(isinstance(item.kind, RowGroup) for item in definition.inputs):
        return definition
    inputs = tuple(row for item in definition.inputs for row in _expand(item, given))
    return dataclasses.replace(definition, inputs=inputs)


def _expand(item: Input, given: Mapping[str, Any]) -> Iterator[Input]:
    if not isinstance(item.kind, RowGroup):
        yield item
        return
    group = item.kind
    names = [name for name in given if name.startswith(f"{item.name}.")]
    rows = sorted({_read_row(item.name, group, name) for name in names})
    if not group.fewest <= len(rows) <= group.most:
        raise DynamicInputError(
            item.name,
            f"DynamicGroup input '{item.name}' received {len(rows)} rows; "
            f"expected between {group.fewest} and {group.most}.",
        )
    for row in rows:
        for field in group.template:
            yield dataclasses.replace(field, name=f"{item.name}.{row}.{field.name}")


def _read_row(prefix: str, group: RowGroup, name: str) -> int:
    row, _, field = name.removeprefix(f"{prefix}.").partition(".")
    is_number = row.isascii() and row.isdecimal() and (row == "0" or not row.startswith("0"))
    if not is_number or field not in {item.name for item in group.template}:
        raise DynamicInputError(
            name,
            f"Invalid DynamicGroup input key '{name}'; "
            f"expected '{prefix}.<index>.<template field>'.",
        )
    if int(row) >= group.most:
        raise DynamicInputError(
            name,
            f"DynamicGroup input '{name}' exceeds the index limit of {group.most - 1} "
            f"(max={group.most}).",
        )
    return int(row)

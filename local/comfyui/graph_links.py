"""Finds the links between the nodes of a prompt."""

from typing import Any

from local.comfyui.node_types import NodeDefinition

_LINK_LENGTH = 2


def is_link(value: object) -> bool:
    """Tell whether an input's value is a link to another node's output slot, and no plain list."""
    return (
        isinstance(value, list)
        and len(value) == _LINK_LENGTH
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def linked_nodes(node: dict[str, Any], definition: NodeDefinition) -> list[str]:
    """Return the ids of the nodes whose values a node takes, by the inputs that it knows."""
    values = (node["inputs"].get(item.name) for item in definition.inputs)
    return [value[0] for value in values if is_link(value)]

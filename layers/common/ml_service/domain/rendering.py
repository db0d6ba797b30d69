"""Filling a workflow's graph: values go into parsed JSON, so no text can change the graph."""

import copy
from collections.abc import Mapping

from ml_service.domain.errors import WorkflowError
from ml_service.domain.workflows import Graph, Workflow


def render_prompt(
    workflow: Workflow, graph: Graph, values: Mapping[str, str | float]
) -> dict[str, dict[str, object]]:
    """Return a copy of the graph with every bound input filled; nothing else is changed.

    Raises WorkflowError for an input that has no value, or a suffix on a value that is no text.
    """
    prompt: dict[str, dict[str, object]] = copy.deepcopy({k: dict(v) for k, v in graph.items()})
    for name, bindings in workflow.bindings.items():
        if name not in values:
            raise WorkflowError(f"{workflow.workflow}: input {name} has no value.")
        for binding in bindings:
            value = values[name]
            if binding.suffix:
                if not isinstance(value, str):
                    raise WorkflowError(f"{workflow.workflow}: {name} is no text to add to.")
                value += binding.suffix
            inputs = prompt[binding.node]["inputs"]
            if not isinstance(inputs, dict):
                raise WorkflowError(f"{workflow.workflow}: node {binding.node} has no inputs.")
            inputs[binding.input] = value
    return prompt

"""Decides which outputs of a posted prompt can run, and says what is wrong with the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.comfyui.node_catalog import NodeCatalog
from local.comfyui.node_types import (
    ANY_TYPE,
    Input,
    MediaKind,
    ModelKind,
    NodeDefinition,
    allowed_values,
    input_options,
    input_type,
)
from local.comfyui.row_groups import DynamicInputError

# ComfyUI leaves the list of allowed values out of an error when it is longer than this.
LONGEST_SHOWN_LIST = 20

# What a malformed node makes Python raise, which ComfyUI reports as that node's error.
_MALFORMED = (AttributeError, LookupError, RecursionError, TypeError, ValueError)

_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "INT": int,
    "FLOAT": float,
    "STRING": str,
    "BOOLEAN": bool,
}


@dataclass(frozen=True)
class ValidatedPrompt:
    """The outputs that can run, the errors of the nodes, and why a prompt is refused, if it is."""

    outputs: list[str] = field(default_factory=list)
    node_errors: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None


@dataclass(frozen=True)
class _NodeResult:
    """What was found at a node; without errors of its own, one before it can be invalid."""

    is_valid: bool
    errors: list[dict[str, Any]]


class PromptValidator:
    """Validates prompts against a server's nodes, input files and models."""

    def __init__(self, catalog: NodeCatalog, *, names_cycles: bool = False) -> None:
        self._catalog = catalog
        self._names_cycles = names_cycles

    def validate(self, prompt: Any, targets: list[str] | None = None) -> ValidatedPrompt:
        """Validate the graph and convert its values in place: ComfyUI echoes the converted ones.

        `targets` limits the outputs. A prompt that is no graph at all raises AttributeError or
        TypeError, which the server answers with status 500, as ComfyUI does.
        """
        outputs: list[str] = []
        for node_id in prompt:
            error = self._check_class(node_id, prompt[node_id])
            if error is not None:
                return ValidatedPrompt(error=error)
            if self._catalog.define(prompt[node_id]).is_output and (
                targets is None or node_id in targets
            ):
                outputs.append(node_id)
        if not outputs:
            return ValidatedPrompt(error=_error("prompt_no_outputs", "Prompt has no outputs"))
        return self._validate_outputs(prompt, outputs)

    def _check_class(self, node_id: str, node: Any) -> dict[str, Any] | None:
        if self._catalog.find(node) is not None:
            return None
        class_type = node.get("class_type")
        title = node.get("_meta", {}).get("title", class_type)
        if "class_type" in node:
            message = f"Node '{title}' not found. The custom node may not be installed."
        else:
            message = (
                f"Node '{title or f'ID #{node_id}'}' has no class_type. "
                "The workflow may be corrupted or a custom node is missing."
            )
        extra_info = {"node_id": node_id, "class_type": class_type, "node_title": title}
        return _error("missing_node_type", message, f"Node ID '#{node_id}'", extra_info)

    def _validate_outputs(self, prompt: dict[str, Any], outputs: list[str]) -> ValidatedPrompt:
        good_outputs: list[str] = []
        output_errors: list[dict[str, Any]] = []
        node_errors: dict[str, Any] = {}
        results: dict[str, _NodeResult] = {}
        for output in outputs:
            try:
                result = self._validate_node(prompt, output, results)
            except _MALFORMED as error:
                result = _NodeResult(False, [_exception_during_validation(error)])
                results[output] = result
            if result.is_valid:
                good_outputs.append(output)
                continue
            output_errors += result.errors
            for node_id, found in results.items():
                if found.errors:
                    entry = node_errors.setdefault(
                        node_id,
                        {
                            "errors": found.errors,
                            "dependent_outputs": [],
                            "class_type": prompt[node_id]["class_type"],
                        },
                    )
                    entry["dependent_outputs"].append(output)
        if good_outputs:
            return ValidatedPrompt(good_outputs, node_errors)
        details = "\n".join(f"{error['message']}: {error['details']}" for error in output_errors)
        message = "Prompt outputs failed validation"
        return ValidatedPrompt(
            node_errors=node_errors,
            error=_error("prompt_outputs_failed_validation", message, details),
        )

    def _validate_node(
        self,
        prompt: dict[str, Any],
        node_id: str,
        results: dict[str, _NodeResult],
        path: tuple[str, ...] = (),
    ) -> _NodeResult:
        """Validate a node after those before it; `path` are the nodes after it that wait for it."""
        if node_id in results:
            return results[node_id]
        if node_id in path:
            if self._names_cycles:
                results.update(_name_cycle(prompt, path[path.index(node_id) :]))
            return _NodeResult(False, [])
        try:
            definition = self._catalog.define_in_full(prompt[node_id])
        except DynamicInputError as error:
            found = _NodeResult(False, [_invalid_dynamic_input(error)])
        else:
            found = self._check_inputs(prompt, definition, results, (*path, node_id))
        # A cycle that goes through this node may have been found meanwhile.
        errors = [*(results[node_id].errors if node_id in results else []), *found.errors]
        results[node_id] = _NodeResult(found.is_valid and not errors, errors)
        return results[node_id]

    def _check_inputs(
        self,
        prompt: dict[str, Any],
        definition: NodeDefinition,
        results: dict[str, _NodeResult],
        path: tuple[str, ...],
    ) -> _NodeResult:
        """Check what the last node of the path is given."""
        inputs = prompt[path[-1]]["inputs"]
        errors: list[dict[str, Any]] = []
        ancestors_are_valid = True
        for item in definition.inputs:
            error: dict[str, Any] | None = None
            if item.name not in inputs:
                error = _required_input_missing(item) if item.required else None
            elif isinstance(inputs[item.name], list):
                error = self._check_link(prompt, definition, item, inputs[item.name])
                if error is None:
                    ancestors_are_valid &= self._validate_ancestor(
                        prompt, definition, item, results, path
                    )
            else:
                error = self._check_value(definition, item, inputs)
            if error is not None:
                errors.append(error)
        return _NodeResult(ancestors_are_valid, errors)

    def _check_link(
        self, prompt: dict[str, Any], definition: NodeDefinition, item: Input, link: list[Any]
    ) -> dict[str, Any] | None:
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            extra = self._extra_info(definition, item, received_value=link)
            return _error("bad_linked_input", message, item.name, extra)
        source = self._catalog.define(prompt[link[0]])
        received = source.outputs[link[1]].kind
        wanted = input_type(definition, item, self._catalog.list_files)
        if ANY_TYPE in (received, wanted) or received == wanted:
            return None
        details = f"{item.name}, received_type({received}) mismatch input_type({wanted})"
        extra = self._extra_info(definition, item, received_type=received, linked_node=link)
        message = "Return type mismatch between linked nodes"
        return _error("return_type_mismatch", message, details, extra)

    def _validate_ancestor(
        self,
        prompt: dict[str, Any],
        definition: NodeDefinition,
        item: Input,
        results: dict[str, _NodeResult],
        path: tuple[str, ...],
    ) -> bool:
        link = prompt[path[-1]]["inputs"][item.name]
        try:
            return self._validate_node(prompt, link[0], results, path).is_valid
        except _MALFORMED as error:
            extra = self._extra_info(
                definition,
                item,
                exception_message=str(error),
                exception_type=type(error).__name__,
                traceback=[],
                linked_node=link,
            )
            message = "Exception when validating inner node"
            found = _error("exception_during_inner_validation", message, str(error), extra)
            results[link[0]] = _NodeResult(False, [found])
            return False

    def _check_value(
        self, definition: NodeDefinition, item: Input, inputs: dict[str, Any]
    ) -> dict[str, Any] | None:
        value = inputs[item.name]
        if isinstance(value, dict) and "__value__" in value:
            # ComfyUI's way to pass a list as a plain value and not as a link.
            value = value["__value__"]
            inputs[item.name] = value
        kind = item.kind
        if isinstance(kind, MediaKind):
            return self._check_file(item, kind, value)
        if isinstance(kind, str) and kind in _CONVERSIONS:
            try:
                value = _CONVERSIONS[kind](value)
            except (TypeError, ValueError, OverflowError) as error:
                return self._invalid_type(definition, item, kind, value, error)
            inputs[item.name] = value
        return self._check_limits(definition, item, value)

    def _check_file(self, item: Input, kind: MediaKind, value: Any) -> dict[str, Any] | None:
        if self._catalog.has_file(kind, value):
            return None
        return _error(
            "custom_validation_failed",
            "Custom validation failed for node",
            f"{item.name} - Invalid {kind} file: {value}",
            {"input_name": item.name},
        )

    def _invalid_type(
        self, definition: NodeDefinition, item: Input, kind: str, value: Any, error: Exception
    ) -> dict[str, Any]:
        extra = self._extra_info(
            definition, item, received_value=value, exception_message=str(error)
        )
        return _error(
            "invalid_input_type",
            f"Failed to convert an input value to a {kind} value",
            f"{item.name}, {value}, {error}",
            extra,
        )

    def _check_limits(
        self, definition: NodeDefinition, item: Input, value: Any
    ) -> dict[str, Any] | None:
        lowest, highest = item.limits.get("min"), item.limits.get("max")
        extra = self._extra_info(definition, item, received_value=value)
        if lowest is not None and value < lowest:
            message = f"Value {value} smaller than min of {lowest}"
            return _error("value_smaller_than_min", message, item.name, extra)
        if highest is not None and value > highest:
            message = f"Value {value} bigger than max of {highest}"
            return _error("value_bigger_than_max", message, item.name, extra)
        if not self._is_allowed(item, value):
            allowed = allowed_values(item, self._catalog.list_files)
            shown = str(allowed)
            if len(allowed) > LONGEST_SHOWN_LIST:
                shown = f"(list of length {len(allowed)})"
                extra["input_config"] = None
            details = f"{item.name}: '{value}' not in {shown}"
            return _error("value_not_in_list", "Value not in list", details, extra)
        return None

    def _is_allowed(self, item: Input, value: Any) -> bool:
        if isinstance(item.kind, ModelKind):
            return self._catalog.has_file(item.kind, value)
        return not isinstance(item.kind, tuple) or value in item.kind

    def _extra_info(
        self, definition: NodeDefinition, item: Input, **received: Any
    ) -> dict[str, Any]:
        config = [
            input_type(definition, item, self._catalog.list_files),
            input_options(definition, item, self._catalog.list_files),
        ]
        return {"input_name": item.name, "input_config": config} | received


def _name_cycle(prompt: Mapping[str, Any], cycle: tuple[str, ...]) -> dict[str, _NodeResult]:
    """Return what is wrong with each node of a cycle; each takes values from the next."""
    steps = [f"{node_id} ({prompt[node_id]['class_type']})" for node_id in (*cycle, cycle[0])]
    message = "Dependency cycle detected"
    return {
        node_id: _NodeResult(
            False,
            [
                _error(
                    "dependency_cycle",
                    message,
                    " -> ".join(steps),
                    {"node_id": node_id, "cycle_nodes": list(cycle)},
                )
            ],
        )
        for node_id in cycle
    }


def _error(
    kind: str, message: str, details: str = "", extra_info: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info or {}}


def no_prompt_error() -> dict[str, Any]:
    """Return the error of a request without a prompt."""
    return _error("no_prompt", "No prompt provided", "No prompt provided")


def invalid_prompt_id_error() -> dict[str, Any]:
    """Return the error of a prompt id that is no canonical UUID."""
    details = (
        "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
        "omit it to let the server generate one"
    )
    return _error("invalid_prompt_id", "prompt_id must be a valid UUID", details)


def _invalid_dynamic_input(error: DynamicInputError) -> dict[str, Any]:
    extra = {"input_name": error.input_name}
    return _error("invalid_dynamic_input", "Invalid dynamic input", str(error), extra)


def _required_input_missing(item: Input) -> dict[str, Any]:
    extra = {"input_name": item.name}
    field = item.name.split(".")[-1]
    return _error("required_input_missing", "Required input is missing", field, extra)


def _exception_during_validation(error: Exception) -> dict[str, Any]:
    extra = {"exception_type": type(error).__name__, "traceback": []}
    message = "Exception when validating node"
    return _error("exception_during_validation", message, str(error), extra)

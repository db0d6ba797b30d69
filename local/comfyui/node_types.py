"""What a node class of the simulator is, and how /object_info shows it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

COMBO = "COMBO"
ANY_TYPE = "*"
_ROW_GROUP = "COMFY_DYNAMICGROUP_V3"

# Tells which files of a kind the server has.
ListFiles = Callable[["MediaKind | ModelKind"], list[str]]


class NodeForm(StrEnum):
    """The two ways in which ComfyUI's nodes describe themselves; /object_info differs by them."""

    CLASSIC = "classic"
    SCHEMA = "schema"


class MediaKind(StrEnum):
    """A kind of media file that a loader node takes from the input folder."""

    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"


@dataclass(frozen=True)
class ModelKind:
    """The models of one folder, and names that a loader takes without a file."""

    folder: str
    built_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowGroup:
    """Inputs that a prompt repeats, as `loras.0.strength`: so many rows at least and at most."""

    name: str
    template: tuple["Input", ...]
    fewest: int
    most: int


@dataclass(frozen=True)
class Input:
    """One input of a node class: a type, or a list of allowed values, with its options.

    `kind` is a ComfyUI type name, a tuple of allowed values, the kind of files whose names are the
    allowed values, or a group of inputs. `options` is None where ComfyUI sends no options at all.
    """

    name: str
    kind: str | tuple[str, ...] | MediaKind | ModelKind | RowGroup
    options: Mapping[str, Any] | None = None
    required: bool = True

    @property
    def limits(self) -> Mapping[str, Any]:
        """The options, empty where the class gives none."""
        return self.options or {}


@dataclass(frozen=True)
class Output:
    """One output slot of a node class."""

    kind: str
    name: str


@dataclass(frozen=True)
class NodeDefinition:
    """Everything that validation and /object_info know about a node class."""

    class_type: str
    form: NodeForm
    module: str
    category: str
    display_name: str | None = None
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    is_output: bool = False
    is_never_cached: bool = False
    hidden: tuple[str, ...] = ()
    extra_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_tied_to_its_id(self) -> bool:
        """Whether equal nodes must not share a result, because the node is told its own id."""
        return "unique_id" in self.hidden


def input_type(definition: NodeDefinition, item: Input, list_files: ListFiles) -> Any:
    """Return the first half of ComfyUI's input pair: a type, or the list of a classic combo."""
    if isinstance(item.kind, RowGroup):
        return _ROW_GROUP
    if definition.form is NodeForm.CLASSIC:
        return allowed_values(item, list_files) if is_combo(item) else item.kind
    return COMBO if is_combo(item) else item.kind


def input_options(definition: NodeDefinition, item: Input, list_files: ListFiles) -> dict[str, Any]:
    """Return the second half of ComfyUI's input pair."""
    options = dict(item.limits)
    if definition.form is NodeForm.SCHEMA and is_combo(item):
        options |= {"multiselect": False, "options": allowed_values(item, list_files)}
    if isinstance(item.kind, RowGroup):
        rows = {
            row.name: _describe_input(definition, row, list_files) for row in item.kind.template
        }
        options |= {
            "template": {"required": rows},
            "min": item.kind.fewest,
            "max": item.kind.most,
            "group_name": item.kind.name,
        }
    return options


def is_combo(item: Input) -> bool:
    """Tell whether the input takes one value of a list."""
    return isinstance(item.kind, tuple | MediaKind | ModelKind)


def allowed_values(item: Input, list_files: ListFiles) -> list[str]:
    """Return the values that a combo input takes now."""
    if isinstance(item.kind, MediaKind | ModelKind):
        return list_files(item.kind)
    return list(item.kind) if isinstance(item.kind, tuple) else []


def describe_node(definition: NodeDefinition, list_files: ListFiles) -> dict[str, Any]:
    """Return the class as /object_info shows it."""
    groups = {
        "required": [item for item in definition.inputs if item.required],
        "optional": [item for item in definition.inputs if not item.required],
    }
    shown: dict[str, Any] = {
        group: {item.name: _describe_input(definition, item, list_files) for item in items}
        for group, items in groups.items()
        if items
    }
    order = {group: [item.name for item in items] for group, items in groups.items() if items}
    if definition.hidden:
        is_schema = definition.form is NodeForm.SCHEMA
        shown["hidden"] = {
            name: [name.upper()] if is_schema else name.upper() for name in definition.hidden
        }
        order["hidden"] = list(definition.hidden)
    described = {
        "input": shown,
        "input_order": order,
        "is_input_list": False,
        "output": [output.kind for output in definition.outputs],
        "output_is_list": [False] * len(definition.outputs),
        "output_name": [output.name for output in definition.outputs],
        "name": definition.class_type,
        "display_name": _display_name(definition),
        "description": "",
        "python_module": definition.module,
        "category": definition.category,
        "output_node": definition.is_output,
    }
    if definition.form is NodeForm.SCHEMA:
        described |= {
            "output_tooltips": [None] * len(definition.outputs),
            "output_matchtypes": None,
            "deprecated": False,
            "experimental": False,
            "dev_only": False,
            "api_node": False,
            "price_badge": None,
        }
    return described | dict(definition.extra_fields)


def describe_nodes(
    definitions: Iterable[NodeDefinition], list_files: ListFiles
) -> dict[str, dict[str, Any]]:
    """Return the answer of GET /object_info."""
    return {item.class_type: describe_node(item, list_files) for item in definitions}


def _describe_input(definition: NodeDefinition, item: Input, list_files: ListFiles) -> list[Any]:
    described = [input_type(definition, item, list_files)]
    if item.options is not None or definition.form is NodeForm.SCHEMA:
        described.append(input_options(definition, item, list_files))
    return described


def _display_name(definition: NodeDefinition) -> str | None:
    if definition.form is NodeForm.CLASSIC:
        return definition.display_name or definition.class_type
    return definition.display_name

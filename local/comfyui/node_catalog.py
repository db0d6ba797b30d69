"""The nodes that a server has: stock ones, further ones, and any others where they are allowed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from local.comfyui.media_folders import MediaFolders
from local.comfyui.model_files import USUAL_MODELS, Models
from local.comfyui.node_definitions import NODE_DEFINITIONS
from local.comfyui.node_run import NodeImplementation
from local.comfyui.node_types import MediaKind, ModelKind, NodeDefinition
from local.comfyui.nodes import NODE_IMPLEMENTATIONS
from local.comfyui.row_groups import expand_rows
from local.comfyui.unknown_nodes import define_unknown_node, implement_unknown_node


@dataclass(frozen=True)
class CustomNode:
    """A node class beside the stock ones."""

    definition: NodeDefinition
    implementation: NodeImplementation


class NodeCatalog:
    """Tells what a node of a prompt is and what it does."""

    def __init__(
        self,
        folders: MediaFolders,
        custom_nodes: Iterable[CustomNode] = (),
        *,
        models: Models = USUAL_MODELS,
        allow_unknown: bool = False,
    ) -> None:
        custom = {node.definition.class_type: node for node in custom_nodes}
        self.definitions: Mapping[str, NodeDefinition] = {
            **NODE_DEFINITIONS,
            **{class_type: node.definition for class_type, node in custom.items()},
        }
        self._implementations: Mapping[str, NodeImplementation] = {
            **NODE_IMPLEMENTATIONS,
            **{class_type: node.implementation for class_type, node in custom.items()},
        }
        self._folders = folders
        self._models = models
        self._allows_unknown = allow_unknown
        self._kept: set[str] = set()

    def list_files(self, kind: MediaKind | ModelKind) -> list[str]:
        """Return the names that a loader node takes: of files in the input folder, or of models."""
        if isinstance(kind, MediaKind):
            return self._folders.list_inputs(kind)
        return [*self._models.get(kind.folder, ()), *kind.built_in]

    def list_models(self, folder: str) -> list[str]:
        """Return the names of the models in a folder."""
        return list(self._models.get(folder, ()))

    def has_file(self, kind: MediaKind | ModelKind, name: object) -> bool:
        """Tell whether a loader node can take a value now.

        Where unknown nodes are allowed, so are unknown models.
        """
        if isinstance(kind, MediaKind):
            return self._folders.has_input(name)
        is_rehearsed = self._allows_unknown and isinstance(name, str)
        return is_rehearsed or name in self.list_files(kind)

    def find(self, node: Mapping[str, Any]) -> NodeDefinition | None:
        """Return what a node of a prompt is, None where its class does not exist."""
        class_type = node.get("class_type")
        if not isinstance(class_type, str):
            return None
        if class_type in self.definitions:
            return self.definitions[class_type]
        if self._allows_unknown:
            return define_unknown_node(class_type, node.get("inputs", {}), self._folders)
        return None

    def define(self, node: Mapping[str, Any]) -> NodeDefinition:
        """Return what a node of a prompt is. Raises KeyError where its class does not exist."""
        definition = self.find(node)
        if definition is None:
            raise KeyError(node.get("class_type"))
        return definition

    def define_in_full(self, node: Mapping[str, Any]) -> NodeDefinition:
        """Return what a node of a prompt is, with the inputs that the prompt itself repeats.

        Raises KeyError as `define` does, and DynamicInputError.
        """
        return expand_rows(self.define(node), node["inputs"])

    def implement(self, node: Mapping[str, Any]) -> NodeImplementation:
        """Return what a node of a prompt does. Raises KeyError where its class does not exist."""
        implementation = self._implementations.get(node["class_type"])
        if implementation is None:
            return implement_unknown_node(self.define(node), self._kept)
        return implementation

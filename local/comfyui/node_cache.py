"""Remembers what nodes returned, so that the unchanged part of a graph does not run again."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.comfyui.graph_links import is_link
from local.comfyui.media_folders import MediaFolders
from local.comfyui.node_catalog import NodeCatalog
from local.comfyui.node_run import NodeResult
from local.comfyui.node_types import MediaKind


class NodeCache:
    """The results of the last prompts' nodes, by signature."""

    def __init__(self) -> None:
        self._results: dict[str, NodeResult] = {}

    def get(self, signature: str) -> NodeResult | None:
        """Return what a node of this signature returned, if it is still known."""
        return self._results.get(signature)

    def put(self, signature: str, result: NodeResult) -> None:
        """Remember a result."""
        self._results[signature] = result

    def keep_only(self, signatures: set[str]) -> None:
        """Forget the rest: like ComfyUI's, the cache holds no more than the last prompt's nodes."""
        self._results = {key: self._results[key] for key in self._results.keys() & signatures}

    def clear(self) -> None:
        """Forget everything."""
        self._results = {}


def sign_nodes(
    prompt: Mapping[str, Any],
    outputs: list[str],
    catalog: NodeCatalog,
    folders: MediaFolders,
) -> dict[str, str]:
    """Return a signature for each node that the outputs need.

    Nodes of equal signature return equal results: it covers class, values, the content of files
    that are read, and the signatures of the nodes before.
    """
    signatures: dict[str, str] = {}

    def sign(node_id: str) -> str:
        if node_id not in signatures:
            node = prompt[node_id]
            definition = catalog.define_in_full(node)
            parts: list[Any] = [node["class_type"], node_id if definition.is_tied_to_its_id else ""]
            if definition.is_never_cached:
                parts.append(str(uuid.uuid4()))
            for item in definition.inputs:
                value = node["inputs"].get(item.name)
                if is_link(value):
                    parts.append([item.name, sign(value[0]), value[1]])
                else:
                    is_file = isinstance(item.kind, MediaKind)
                    parts.append([item.name, value, _sign_file(folders, value) if is_file else ""])
            signatures[node_id] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return signatures[node_id]

    for output in outputs:
        sign(output)
    return signatures


def _sign_file(folders: MediaFolders, name: str) -> str:
    path: Path = folders.input_path(name)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        # The file went away after validation. Nothing is cached for it; the node itself will fail.
        return str(uuid.uuid4())

"""Workflows as they lie on disk: <fleet>/<workflow>.yaml with its graph in <workflow>.json."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError

from ml_service.domain.errors import WorkflowError
from ml_service.domain.workflows import Graph, Workflow, WorkflowCatalog


def load_catalog(directory: Path, fleets: Iterable[str] | None = None) -> WorkflowCatalog:
    """Read every workflow of the fleets, or of all folders if none are named.

    Raises WorkflowError with the file and what is wrong in it.
    """
    folders = (
        [directory / fleet for fleet in fleets]
        if fleets is not None
        else sorted(path for path in directory.iterdir() if path.is_dir())
    )
    return WorkflowCatalog(pair for folder in folders for pair in _load_folder(folder))


def _load_folder(folder: Path) -> Iterator[tuple[Workflow, Graph]]:
    for manifest in sorted(folder.glob("*.yaml")):
        workflow = _load_manifest(manifest)
        if workflow.workflow != manifest.stem:
            raise WorkflowError(f"{manifest}: workflow must be {manifest.stem}, as the file is.")
        if workflow.fleet != folder.name:
            raise WorkflowError(f"{manifest}: fleet must be {folder.name}, as the folder is.")
        yield workflow, _load_graph(manifest.with_suffix(".json"))


def _load_manifest(path: Path) -> Workflow:
    try:
        return Workflow.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise WorkflowError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise WorkflowError(f"{path}: {faults}") from None


def _load_graph(path: Path) -> Graph:
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkflowError(f"{path}: the graph of this workflow is missing.") from None
    except ValueError as error:
        raise WorkflowError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(graph, dict) or not all(
        isinstance(node, dict) and isinstance(node.get("class_type"), str)
        for node in graph.values()
    ):
        raise WorkflowError(
            f"{path}: not an API-format graph; export it from ComfyUI with Save (API Format)."
        )
    return graph

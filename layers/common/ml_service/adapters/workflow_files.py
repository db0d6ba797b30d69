"""Workflows as they lie on disk: <fleet>/<workflow>.yaml with its graph in <workflow>.json."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from ml_service.domain.errors import WorkflowError
from ml_service.domain.graphs import Graph, read_graph
from ml_service.domain.manifests import Workflow
from ml_service.domain.warm_ups import CHECK_PREFIX, LOAD_PREFIX, WarmUp
from ml_service.domain.workflows import WorkflowCatalog

# Part of every cold start; libyaml's is eight times as fast, where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_catalog(directory: Path, fleets: Iterable[str] | None = None) -> WorkflowCatalog:
    """Read every workflow of the fleets, or of all folders if none are named.

    Raises WorkflowError with the file and what is wrong in it.
    """
    return WorkflowCatalog(
        (load_manifest(manifest), load_graph(manifest.with_suffix(".json")))
        for manifest in list_manifests(directory, fleets)
    )


def list_manifests(directory: Path, fleets: Iterable[str] | None = None) -> Iterator[Path]:
    """The manifests' files, fleet by fleet; raises WorkflowError."""
    if not directory.is_dir():
        raise WorkflowError(f"{directory} is no folder of workflows.")
    folders = (
        [directory / fleet for fleet in fleets]
        if fleets is not None
        else sorted(path for path in directory.iterdir() if path.is_dir())
    )
    return (manifest for folder in folders for manifest in sorted(folder.glob("*.yaml")))


def load_warm_up(directory: Path, fleet: str) -> WarmUp:
    """Read a fleet's warm-up graphs, each kind in the order of its files' names.

    Raises WorkflowError.
    """
    checks = _load_graphs(directory / fleet, CHECK_PREFIX)
    loads = _load_graphs(directory / fleet, LOAD_PREFIX)
    return WarmUp(checks=checks, loads=loads) if checks else WarmUp(loads=loads)


def _load_graphs(folder: Path, prefix: str) -> Sequence[Graph]:
    return tuple(load_graph(path) for path in sorted(folder.glob(f"{prefix}*.json")))


def load_manifest(path: Path) -> Workflow:
    """Read one manifest; raises WorkflowError."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_LOADER)  # noqa: S506  (both are safe ones)
        workflow = Workflow.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WorkflowError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise WorkflowError(f"{path}: {faults}") from None
    if workflow.workflow != path.stem:
        raise WorkflowError(f"{path}: workflow must be {path.stem}, as the file is.")
    if workflow.fleet != path.parent.name:
        raise WorkflowError(f"{path}: fleet must be {path.parent.name}, as the folder is.")
    return workflow


def load_graph(path: Path) -> Graph:
    """Read one graph file; raises WorkflowError."""
    try:
        return read_graph(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkflowError(f"{path}: the graph of this workflow is missing.") from None
    except UnicodeDecodeError:
        raise WorkflowError(f"{path}: not a text in UTF-8: save it as one") from None
    except WorkflowError as error:
        raise WorkflowError(f"{path}: {error}") from None

"""Checking workflows: every manifest with its graph, and the graphs that fleets warm up with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from local.graph_folder import GraphFolder, is_warm_up, list_graph_folder, list_warm_ups
from ml_service.adapters.workflow_files import (
    list_manifests,
    load_catalog,
    load_graph,
    load_manifest,
)
from ml_service.domain.errors import MlServiceError, WorkflowError
from ml_service.domain.graph_faults import (
    find_faults,
    find_graph_faults,
    find_placeholder_faults,
    find_unused_inputs,
)
from ml_service.domain.manifests import Workflow
from ml_service.domain.node_definitions import (
    Definitions,
    find_definition_faults,
    find_missing_needs,
)

_TIMEOUT_SECONDS = 60.0
"""An instance with many custom nodes takes seconds to list them."""


class InstanceError(MlServiceError):
    """When a ComfyUI server does not list its node classes."""


@dataclass(frozen=True)
class FileReport:
    """What was found of one file."""

    path: Path
    name: str
    """The workflow's name, or what else the file is."""
    faults: Sequence[str] = ()
    unused: Sequence[str] = ()
    """The workflow's inputs that the graph does not take."""


def check_workflows(
    directory: Path,
    *,
    graphs: Path | None = None,
    definitions: Definitions | None = None,
    fleet: str | None = None,
) -> list[FileReport]:
    """Check every pair of a folder of workflows, or of one fleet, with graphs of another first.

    Raises WorkflowError or GraphFolderError where there is no such folder.
    """
    reports: list[FileReport] = []
    workflows: dict[Path, Workflow] = {}
    for path in list_manifests(directory):
        try:
            workflows[path] = load_manifest(path)
        except WorkflowError as error:
            reports.append(FileReport(path, "manifest", _split(path, error)))
    fleets = sorted({path.parent.name for path in list_manifests(directory)})
    if fleet is not None and fleet not in fleets:
        raise WorkflowError(f"there is no fleet {fleet}, only {', '.join(fleets)}")
    reports += _find_lone_graphs(directory, fleets if fleet is None else [fleet])
    folder = GraphFolder()
    if graphs is not None:
        folder = list_graph_folder(graphs, list(workflows.values()))
    for path, workflow in workflows.items():
        if fleet in (None, workflow.fleet):
            graph_path = folder.graphs.get(workflow.workflow, path.with_suffix(".json"))
            reports.append(check_graph(graph_path, workflow, definitions))
    warm_ups = [(path.parent.name, path) for path in list_warm_ups(directory)]
    reports += [
        check_warm_up(path, definitions)
        for name, path in (*warm_ups, *folder.warm_ups)
        if fleet in (None, name)
    ]
    reports += [check_unknown(path, reason) for path, reason in folder.unknown.items()]
    if graphs is None and not any(report.faults for report in reports):
        try:
            load_catalog(directory)
        except WorkflowError as error:
            reports.append(FileReport(directory, "catalog", [str(error)]))
    return reports


def check_graph(path: Path, workflow: Workflow, definitions: Definitions | None) -> FileReport:
    """Check a workflow's graph file."""
    try:
        graph = load_graph(path)
    except WorkflowError as error:
        return FileReport(path, workflow.workflow, _split(path, error))
    found = find_faults(workflow, graph)
    faults = [str(fault) for fault in found]
    if not faults and definitions is not None:
        faults += map(str, find_definition_faults(graph, definitions, workflow))
        faults += find_missing_needs(workflow, definitions)
    return FileReport(path, workflow.workflow, faults, find_unused_inputs(workflow, graph))


def check_warm_up(path: Path, definitions: Definitions | None) -> FileReport:
    """Check a graph that takes no inputs."""
    try:
        graph = load_graph(path)
    except WorkflowError as error:
        return FileReport(path, "warm-up", _split(path, error))
    found = [*find_graph_faults(graph), *find_placeholder_faults(graph)]
    if not found and definitions is not None:
        found = find_definition_faults(graph, definitions)
    return FileReport(path, "warm-up", [str(fault) for fault in found])


def check_unknown(path: Path, reason: str) -> FileReport:
    """Say what a file is that is for nothing: what is wrong with it comes before its name."""
    try:
        load_graph(path)
    except WorkflowError as error:
        return FileReport(path, "unknown", _split(path, error))
    return FileReport(path, "unknown", [reason])


def fetch_definitions(url: str) -> Definitions:
    """Ask a ComfyUI server for its node classes; raises InstanceError."""
    scheme = "" if "://" in url else "http://"
    address = f"{scheme}{url.rstrip('/')}/object_info"
    try:
        answer = requests.get(address, timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
        definitions = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise InstanceError(f"{address}: {error}") from None
    if not isinstance(definitions, dict):
        raise InstanceError(f"{address} does not list node classes")
    return definitions


def _find_lone_graphs(directory: Path, fleets: Sequence[str]) -> Iterator[FileReport]:
    """Find the graphs that no manifest makes a workflow of."""
    for fleet in fleets:
        for path in sorted((directory / fleet).glob("*.json")):
            manifest = path.with_suffix(".yaml")
            if not manifest.exists() and not is_warm_up(path):
                fault = f"no manifest: write {manifest.name} beside it"
                yield FileReport(path, "unknown", [fault])


def _split(path: Path, error: WorkflowError) -> list[str]:
    """The sentence of an error that names its file, which a report names itself."""
    return [str(error).removeprefix(f"{path}: ")]

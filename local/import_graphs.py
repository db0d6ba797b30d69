"""Taking over a user's graph files: each goes, unchanged, into the place of a reference graph."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local.check_workflows import FileReport, check_graph, check_unknown, check_warm_up
from local.graph_folder import WARM_UP_PREFIXES, list_graph_folder, list_warm_ups
from ml_service.adapters.workflow_files import list_manifests, load_manifest


@dataclass(frozen=True)
class ImportReport:
    """What became of each file, and what is still missing."""

    imported: Sequence[tuple[FileReport, Path]]
    """Each with the place that it was put."""
    refused: Sequence[FileReport]
    """Files that were left where they are."""
    missing: Sequence[str]
    """Workflows that keep the graph they had."""
    missing_warm_ups: Sequence[str]
    """Warm-up graphs that a fleet does not have, as ``is-cached (pulid)``."""


def import_graphs(folder: Path, directory: Path) -> ImportReport:
    """Copy the graphs of a folder that fit their manifests into a folder of workflows."""
    manifests = {path.stem: (path, load_manifest(path)) for path in list_manifests(directory)}
    found = list_graph_folder(folder, [workflow for _, workflow in manifests.values()])
    checked = []
    for name, path in found.graphs.items():
        manifest, workflow = manifests[name]
        checked.append((check_graph(path, workflow, None), manifest.with_suffix(".json")))
    for fleet, path in found.warm_ups:
        checked.append((check_warm_up(path, None), directory / fleet / f"{path.stem}.json"))
    imported = [(report, place) for report, place in checked if not report.faults]
    refused = [report for report, _ in checked if report.faults]
    refused += [check_unknown(path, reason) for path, reason in found.unknown.items()]
    for report, place in imported:
        if report.path.resolve() != place.resolve():
            shutil.copyfile(report.path, place)
    here = {report.name for report, _ in imported}
    return ImportReport(
        imported, refused, sorted(manifests.keys() - here), _list_missing_warm_ups(directory)
    )


def _list_missing_warm_ups(directory: Path) -> list[str]:
    fleets = sorted({manifest.parent.name for manifest in list_manifests(directory)})
    here = [(path.parent.name, path.name) for path in list_warm_ups(directory)]
    return [
        f"{prefix} ({fleet})"
        for fleet in fleets
        for prefix in WARM_UP_PREFIXES
        if not any(name == fleet and file.startswith(prefix) for name, file in here)
    ]

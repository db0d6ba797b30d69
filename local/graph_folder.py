"""A folder of graph files as users have them: which file is the graph of which workflow."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml_service.domain.errors import MlServiceError
from ml_service.domain.manifests import Workflow
from ml_service.domain.warm_ups import CHECK_PREFIX, LOAD_PREFIX

WARM_UP_PREFIXES = (CHECK_PREFIX, LOAD_PREFIX)
"""How the graphs begin that a fleet's instances run before they take jobs."""


class GraphFolderError(MlServiceError):
    """When there is no folder to look for graph files in."""


@dataclass(frozen=True)
class GraphFolder:
    """The graph files of a folder, each with what it is for."""

    graphs: Mapping[str, Path] = field(default_factory=dict)
    """The file of each workflow that has one."""
    warm_ups: Sequence[tuple[str, Path]] = ()
    """The warm-up graphs, each with its fleet."""
    unknown: Mapping[Path, str] = field(default_factory=dict)
    """Files that are for nothing, each with the reason and the remedy."""


def list_graph_folder(folder: Path, workflows: Sequence[Workflow]) -> GraphFolder:
    """Sort the JSON files in and below a folder by their names; raises GraphFolderError."""
    if not folder.is_dir():
        raise GraphFolderError(f"{folder} is no folder")
    names = {_squeeze(workflow.workflow): workflow.workflow for workflow in workflows}
    prompt_files = {file: w.workflow for w in workflows for file in w.prompt_files}
    fleets = _list_fleet_words(workflows)
    claims: dict[str, list[Path]] = defaultdict(list)
    warm_ups, unknown = [], {}
    for path in sorted(filter(_is_graph_file, folder.rglob("*"))):
        if is_warm_up(path):
            fleet = _find_fleet(path, fleets)
            if fleet is not None:
                warm_ups.append((fleet, path))
            else:
                unknown[path] = (
                    "a warm-up graph of no known fleet: put the fleet's name into the file's or "
                    f"its folder's name ({', '.join(fleets)})"
                )
        elif name := prompt_files.get(path.name) or _find_workflow(path, names):
            claims[name].append(path)
        else:
            unknown[path] = "it names no workflow: call it as the workflow, as flux-prompt.json"
    graphs = {}
    for name, paths in claims.items():
        chosen = _choose_file(name, paths)
        if chosen is not None:
            graphs[name] = chosen
        rivals = [path for path in paths if path != chosen]
        unknown |= dict.fromkeys(rivals, f"not the only file for {name}: keep one of them")
    return GraphFolder(graphs, warm_ups, unknown)


def list_warm_ups(directory: Path) -> list[Path]:
    """The warm-up graphs in a folder of workflows, which lie in their fleets' folders."""
    return [path for path in sorted(directory.glob("*/*.json")) if is_warm_up(path)]


def _is_graph_file(path: Path) -> bool:
    # A name with a dot in front is some system's own note beside the file.
    return path.suffix.lower() == ".json" and not path.name.startswith(".") and path.is_file()


def is_warm_up(path: Path) -> bool:
    """Whether a graph's name says that instances run it before they take jobs."""
    return path.stem.startswith(WARM_UP_PREFIXES)


def _choose_file(name: str, paths: Sequence[Path]) -> Path | None:
    """The one that is named exactly as the workflow, or the only one."""
    exact = [path for path in paths if path.stem == name] or paths
    return exact[0] if len(exact) == 1 else None


def _find_workflow(path: Path, names: Mapping[str, str]) -> str | None:
    """The workflow with the longest name in the file's, upper case and punctuation aside."""
    stem = _squeeze(path.stem)
    found = max((name for name in names if name in stem), key=len, default=None)
    return None if found is None else names[found]


def _list_fleet_words(workflows: Sequence[Workflow]) -> Mapping[str, set[str]]:
    """Each fleet, by name, with the words that only the names of its workflows have."""
    words: dict[str, set[str]] = {fleet: set() for fleet in sorted({w.fleet for w in workflows})}
    for workflow in workflows:
        words[workflow.fleet] |= set(workflow.workflow.split("-"))
    return {
        fleet: own.difference(*(others for name, others in words.items() if name != fleet))
        for fleet, own in words.items()
    }


def _find_fleet(path: Path, fleets: Mapping[str, set[str]]) -> str | None:
    """The fleet that a warm-up graph's name means: by its own name, else by its workflows'."""
    if path.parent.name in fleets:
        return path.parent.name
    found = [fleet for fleet in fleets if _squeeze(fleet) in _squeeze(path.stem)]
    if not found:
        said = set(re.split(r"[^a-z0-9]+", path.stem.lower()))
        found = [fleet for fleet, words in fleets.items() if words & said]
    return found[0] if len(found) == 1 else None


def _squeeze(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

"""What tests of several folders share: local mode, and rules about which tests run, and where.

Tests about the reference graphs are skipped where graphs of one's own took their place. Where
REFERENCE_GRAPHS=required, as in the project's own CI, that is an error: nothing that they prove may
go unproven because a reference graph was changed.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from local.backend import Backend
from local.graph_folder import list_warm_ups
from local.project import WORKFLOWS
from local.sample_jobs import is_faithful
from local.start_local_mode import running_local_mode
from tests.makers import CATALOG

# They take ten seconds of a core to start: one process runs all tests that use the same.
_SHARED_FIXTURES = ("backend", "sample")


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Local mode as a user starts it, once for all tests of a process."""
    directory: Path = tmp_path_factory.mktemp("local-mode")
    with running_local_mode(directory, "--prompt-seconds", "0") as backend:
        yield backend


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Say what is skipped and why, and which tests have to run in one process."""
    _skip_what_other_graphs_replaced(items)
    shared = {
        item.path: fixture
        for item in items
        for fixture in _SHARED_FIXTURES
        if fixture in getattr(item, "fixturenames", ())
    }
    for item in items:
        item.add_marker(pytest.mark.xdist_group(shared.get(item.path, str(item.path))))


def _skip_what_other_graphs_replaced(items: Sequence[pytest.Item]) -> None:
    own = [workflow.workflow for workflow in CATALOG if not is_faithful(workflow)]
    own += [path.stem for path in list_warm_ups(WORKFLOWS)]
    if not own:
        return
    reason = f"not a reference graph any more: {', '.join(own)}"
    if os.environ.get("REFERENCE_GRAPHS") == "required":
        raise pytest.UsageError(reason)
    for item in items:
        if item.get_closest_marker("reference_graphs") is not None:
            item.add_marker(pytest.mark.skip(reason=reason))

"""Rules for all tests: which of them run, and which together.

Tests about the reference graphs are skipped where graphs of one's own took their place. Where
REFERENCE_GRAPHS=required, as in the project's own CI, that is an error: nothing that they prove may
go unproven because a reference graph was changed.
"""

import os
from collections.abc import Sequence
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from local.graph_folder import list_warm_ups
from local.project import WORKFLOWS
from local.sample_jobs import is_faithful
from tests.makers import CATALOG

# Fixtures that take up to ten seconds of a core to start, and the files that use them.
_SHARED = {
    "backend": {"tests/e2e/test_backend_contract.py", "tests/e2e/test_commands.py"},
    "sample": {
        "tests/integration/embedded_aws/test_moto_patches.py",
        "tests/integration/embedded_aws/test_sample_app.py",
    },
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Give each process whole files, and to one all files that share what is slow to start."""
    return _SharedFixtureScheduling(config, log)


class _SharedFixtureScheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((name for name, files in _SHARED.items() if file in files), file)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip what other graphs replaced, with the reason."""
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

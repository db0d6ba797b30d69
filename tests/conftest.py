"""Tests about the reference graphs are skipped where graphs of one's own took their place.

Where REFERENCE_GRAPHS=required, as in the project's own CI, that is an error: nothing that they
prove may go unproven because a reference graph was changed.
"""

import os
from collections.abc import Sequence

import pytest

from local.graph_folder import list_warm_ups
from local.project import WORKFLOWS
from local.sample_jobs import is_faithful
from tests.makers import CATALOG


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip them, with the reason."""
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

"""Tests about the reference graphs are skipped where graphs of one's own took their place."""

from collections.abc import Sequence

import pytest

from local.graph_folder import list_warm_ups
from local.sample_jobs import is_faithful
from tests.makers import CATALOG, PROJECT


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip them, with the reason."""
    own = [workflow.workflow for workflow in CATALOG if not is_faithful(workflow)]
    own += [path.stem for path in list_warm_ups(PROJECT / "workflows")]
    if own:
        skip = pytest.mark.skip(reason=f"not a reference graph any more: {', '.join(own)}")
        for item in items:
            if item.get_closest_marker("reference_graphs") is not None:
                item.add_marker(skip)

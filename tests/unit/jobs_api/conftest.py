"""The jobs API's handler on a stage in memory."""

import pytest

from functions.jobs_api import app
from tests.api_world import ApiWorld


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> ApiWorld:
    """A stage whose API is called."""
    world = ApiWorld()
    services = world.make_jobs_api()
    monkeypatch.setattr(app, "make_jobs_api", lambda: services)
    return world

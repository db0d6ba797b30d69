"""What holds for every request."""

import pytest

from functions.jobs_api import app
from tests.api_world import ApiWorld
from tests.makers import JOB_ID


def test_a_path_that_there_is_not(api: ApiWorld):
    answer = api.request("GET", "/job")
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


def test_a_method_that_a_path_has_not(api: ApiWorld):
    answer = api.request("PUT", f"/jobs/{JOB_ID}")
    assert (answer.status, answer.json["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"] == "DELETE, GET"


def test_a_fault_of_the_service_says_nothing_of_itself(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api.jobs, "get", lambda _: 1 / 0)
    answer = api.request("GET", f"/jobs/{JOB_ID}")
    assert (answer.status, answer.json["code"]) == (500, "INTERNAL_ERROR")
    assert "division" not in answer.content.decode()


@pytest.mark.parametrize("debug_header", [False, True])
def test_headers_are_logged_on_demand_and_never_with_credentials(
    debug_header: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    world = ApiWorld(debug_header=debug_header)
    services = world.make_jobs_api()
    monkeypatch.setattr(app, "make_jobs_api", lambda: services)
    headers = {
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIA",
        "x-amz-security-token": "secret-1",
        "cookie": "secret-2",
        "idempotency-key": "secret-3",
        "user-agent": "curl/8",
    }
    logged: list[dict[str, str]] = []
    monkeypatch.setattr(app.logger, "info", lambda _, extra: logged.append(extra["headers"]))
    world.request("GET", "/health", **headers)
    assert bool(logged) is debug_header
    assert all("AKIA" not in str(headers) for headers in logged)
    assert all("secret" not in str(headers) for headers in logged)
    assert [headers["user-agent"] for headers in logged] == ["curl/8"] * debug_header

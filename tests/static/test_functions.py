"""Each function's folder, resource, settings and layers say the same."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from ml_service import settings
from ml_service.domain.fleets import Fleet
from ml_service.settings import Settings, load_settings
from tests.static.deploy_template import Deployment

FUNCTION_NAMES = (
    "dispatch_jobs",
    "admit_jobs",
    "observe_instances",
    "warm_instance",
    "choose_instance",
    "submit_prompt",
    "await_prompt",
    "collect_outputs",
    "finish_job",
    "cancel_prompt",
    "sweep_jobs",
    "scale_fleets",
    "jobs_api",
    "result_api",
)
SETTINGS_CLASSES = {
    cls.function: cls
    for _, cls in inspect.getmembers(settings, inspect.isclass)
    if issubclass(cls, Settings) and cls.function
}
# Read by Powertools and not by us.
POWERTOOLS_VARIABLES = {
    "POWERTOOLS_SERVICE_NAME",
    "POWERTOOLS_METRICS_NAMESPACE",
    "POWERTOOLS_LOG_LEVEL",
}


def test_each_function_has_a_folder_a_resource_and_settings(
    root: Path, functions: dict[str, Any]
) -> None:
    """None of the three exists without the others."""
    folders = {path.parent.name for path in (root / "functions").glob("*/app.py")}

    assert folders == set(FUNCTION_NAMES)
    assert set(functions) == set(FUNCTION_NAMES)
    assert set(SETTINGS_CLASSES) == set(FUNCTION_NAMES)


def test_a_function_folder_holds_nothing_but_its_handler(root: Path) -> None:
    """A second file would be logic out of reach of the other functions: it belongs in the layer."""
    extra = [
        str(path.relative_to(root))
        for path in (root / "functions").glob("*/*")
        if path.name not in {"app.py", "__pycache__"}
    ]

    assert extra == []


@pytest.mark.parametrize("function", FUNCTION_NAMES)
def test_handler_can_be_called_by_lambda(function: str, template: dict[str, Any]) -> None:
    """The name in the template leads to a callable with Lambda's two arguments."""
    module_name, _, attribute = template["Globals"]["Function"]["Handler"].partition(".")
    handler = getattr(importlib.import_module(f"functions.{function}.{module_name}"), attribute)

    assert list(inspect.signature(handler).parameters) == ["event", "context"]


@pytest.mark.parametrize("function", FUNCTION_NAMES)
def test_template_gives_exactly_the_variables_that_the_settings_read(
    function: str, deployment: Deployment
) -> None:
    """No variable is missing, none is left over from earlier code."""
    given = deployment.environments[_physical_name(deployment, function)].keys()

    assert given - POWERTOOLS_VARIABLES == SETTINGS_CLASSES[function].variables()


@pytest.mark.parametrize("function", FUNCTION_NAMES)
def test_settings_accept_the_templates_values(function: str, deployment: Deployment) -> None:
    """The variables' texts have the types that the settings want, JSON included."""
    variables = deployment.environments[_physical_name(deployment, function)]

    loaded = load_settings(SETTINGS_CLASSES[function], variables)

    assert loaded.stage == deployment.stage


def test_every_function_knows_the_same_fleets(deployment: Deployment) -> None:
    """A template has no variables: the fleets are written once per function that needs them."""
    texts = {v["FLEETS"] for v in deployment.environments.values() if "FLEETS" in v}

    assert len(texts) == 1


def test_prod_has_room_for_the_2t_rule_and_dev_one_job_per_instance(
    deployments: dict[str, Deployment],
) -> None:
    """With fewer than 2T + 2 slots no instance could ever hold more than 2T prompts."""
    prod, dev = (_load_fleets(deployments[stage]) for stage in ("prod", "dev"))

    assert {name: fleet.threshold for name, fleet in prod.items()} == {
        "lip-sync": 3,
        "pulid": 5,
        "makeup": 5,
    }
    assert all(f.slots_per_instance == 2 * f.threshold + 4 for f in prod.values())
    assert all(f.slots_per_instance == 1 for f in dev.values())


def test_fleets_name_their_own_queues_and_groups(deployment: Deployment) -> None:
    """A copied line that still names another fleet's queue would send its jobs there."""
    for name, fleet in _load_fleets(deployment).items():
        assert fleet.task_queue_url.endswith(
            f"/{deployment.stage}-ml-service-comfyui-{name}-task-queue"
        )
        assert fleet.group_name == f"comfyui-{name}-task-instance-autoscaling-group"


def test_functions_that_read_workflows_carry_their_layer(functions: dict[str, Any]) -> None:
    """WORKFLOWS_DIR points to where the layer is unpacked; one without the other is a fault."""
    for properties in functions.values():
        variables = properties.get("Environment", {}).get("Variables", {})
        has_layer = {"Ref": "WorkflowsLayer"} in properties.get("Layers", [])
        assert has_layer == ("WORKFLOWS_DIR" in variables)
        assert variables.get("WORKFLOWS_DIR", "/opt") == "/opt"


def test_timeouts_leave_room_for_what_a_call_may_last(
    template: dict[str, Any], functions: dict[str, Any]
) -> None:
    """await_prompt and a warm-up hold 240 s, files take minutes, admission 10 s per fleet."""
    usual = template["Globals"]["Function"]["Timeout"]
    timeouts = {name: properties.get("Timeout", usual) for name, properties in functions.items()}

    assert timeouts == dict.fromkeys(FUNCTION_NAMES, 30) | {
        "finish_job": 120,
        "admit_jobs": 55,
        "warm_instance": 300,
        "submit_prompt": 300,
        "await_prompt": 300,
        "collect_outputs": 300,
        "cancel_prompt": 120,
        "scale_fleets": 55,
        "sweep_jobs": 55,
    }


def _physical_name(deployment: Deployment, function: str) -> str:
    return f"{deployment.stage}-ml-service-{function.replace('_', '-')}"


def _load_fleets(deployment: Deployment) -> dict[str, Fleet]:
    variables = deployment.environments[_physical_name(deployment, "admit_jobs")]
    return load_settings(settings.AdmitJobsSettings, variables).fleets

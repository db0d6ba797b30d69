"""What the static tests read: the files as they stand, and both stages as moto resolves them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from local.aws.read_template import read_template
from scripts.transform_template import transform_template
from tests.static.deploy_template import Deployment, deploy_template

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    """template.yaml as it is written."""
    return read_template(ROOT / "template.yaml")


@pytest.fixture(scope="session")
def resources(template: dict[str, Any]) -> dict[str, Any]:
    """The resources of template.yaml."""
    found: dict[str, Any] = template["Resources"]
    return found


@pytest.fixture(scope="session")
def functions(resources: dict[str, Any]) -> dict[str, Any]:
    """Properties of each function in template.yaml by its folder."""
    return {
        Path(resource["Properties"]["CodeUri"]).name: resource["Properties"]
        for resource in resources.values()
        if resource["Type"] == "AWS::Serverless::Function"
    }


@pytest.fixture(scope="session")
def fleets_template() -> dict[str, Any]:
    """fleets/template.yaml as it is written."""
    return read_template(ROOT / "fleets" / "template.yaml")


@pytest.fixture(scope="session")
def definition_text() -> str:
    """run_job.asl.json before substitution."""
    return (ROOT / "statemachines" / "run_job.asl.json").read_text()


@pytest.fixture(scope="session")
def definition(definition_text: str) -> dict[str, Any]:
    """run_job.asl.json, parsed."""
    parsed: dict[str, Any] = json.loads(definition_text)
    return parsed


@pytest.fixture(scope="session")
def transformed() -> dict[str, Any]:
    """template.yaml as CloudFormation gets it."""
    return transform_template(ROOT / "template.yaml")


@pytest.fixture(scope="session")
def deployments(transformed: dict[str, Any]) -> Mapping[str, Deployment]:
    """Both stages, created on moto from the same template."""
    return {stage: deploy_template(transformed, stage) for stage in ("dev", "prod")}


@pytest.fixture(params=["dev", "prod"])
def deployment(request: pytest.FixtureRequest, deployments: Mapping[str, Deployment]) -> Deployment:
    """Each stage in turn."""
    return deployments[request.param]

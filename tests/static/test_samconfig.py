"""Plain `sam deploy --config-env STAGE` says everything that a deployment needs."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from local.aws.read_template import read_template


@pytest.fixture(scope="module")
def samconfig(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "samconfig.toml").read_text())


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_each_stage_deploys_its_own_stack(samconfig: dict[str, Any], stage: str) -> None:
    """Two stages in one stack would replace each other."""
    deploy = samconfig[stage]["deploy"]["parameters"]

    assert deploy["stack_name"] == f"{stage}-ml-service"
    assert f"Stage={stage}" in deploy["parameter_overrides"]
    assert deploy["capabilities"] == "CAPABILITY_IAM"
    assert deploy["resolve_s3"] is True


@pytest.mark.parametrize("environment", ["dev", "prod", "fleets"])
def test_overrides_are_parameters_of_the_template(
    root: Path, samconfig: dict[str, Any], environment: str
) -> None:
    """Every parameter without a default is there, and none that the template does not know."""
    deploy = samconfig[environment]["deploy"]["parameters"]
    template = read_template(root / deploy.get("template_file", "template.yaml"))
    overrides = {override.partition("=")[0] for override in deploy["parameter_overrides"]}

    assert overrides <= template["Parameters"].keys()
    assert {n for n, p in template["Parameters"].items() if "Default" not in p} <= overrides


def test_region_and_account_are_left_to_the_users_profile(samconfig: dict[str, Any]) -> None:
    """The file serves every account as it is."""
    for environment in samconfig.values():
        if isinstance(environment, dict):
            for command in environment.values():
                assert command["parameters"].keys().isdisjoint({"region", "profile", "s3_bucket"})

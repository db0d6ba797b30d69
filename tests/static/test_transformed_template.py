"""template.yaml as CloudFormation gets it."""

import copy
from collections.abc import Mapping
from typing import Any

from scripts.lint_template import lint_transformed


def test_lint_finds_nothing_after_the_transform(transformed: dict[str, Any]) -> None:
    """The SAM form hides roles, permissions and mappings; here they are linted, too."""
    assert lint_transformed(transformed) == []


def test_lint_finds_the_circle_that_the_sam_form_hides(transformed: dict[str, Any]) -> None:
    """admit -> state machine -> finish -> admit: the reason why two names are written out."""
    circular = copy.deepcopy(transformed)
    properties = circular["Resources"]["FinishJobFunction"]["Properties"]
    properties["Environment"]["Variables"]["ADMIT_JOBS_FUNCTION_NAME"] = {
        "Ref": "AdmitJobsFunction"
    }

    assert any(fault.startswith("E3004") for fault in lint_transformed(circular))


def test_no_role_is_made_by_sam(transformed: Mapping[str, Any], template: dict[str, Any]) -> None:
    """SAM's own roles come with managed policies that may write to every log group."""
    written = {n for n, r in template["Resources"].items() if r["Type"] == "AWS::IAM::Role"}
    roles = {n for n, r in transformed["Resources"].items() if r["Type"] == "AWS::IAM::Role"}

    assert roles == written


def test_every_parameter_and_condition_is_used(template: dict[str, Any]) -> None:
    """A parameter that nothing reads promises what does not happen."""
    body = str({key: value for key, value in template.items() if key != "Parameters"})

    for name in template["Parameters"]:
        assert f"'Ref': '{name}'" in body or f"${{{name}}}" in body, name
    for name in template["Conditions"]:
        assert f"['{name}'," in body or f"'Condition': '{name}'" in body, name


def test_only_the_network_has_to_be_named(template: dict[str, Any]) -> None:
    """All else has a default with which the application can be deployed."""
    required = {n for n, p in template["Parameters"].items() if "Default" not in p}

    assert required == {"VpcId", "PrivateSubnetIds"}
